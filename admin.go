package stagebus

import "context"

// Admin declares and inspects topics; names are validated before the broker sees them.
func (b *Broker) Admin() Admin { return &guardedAdmin{b.driver.Admin()} }

type guardedAdmin struct{ inner Admin }

func (a *guardedAdmin) Declare(ctx context.Context, s TopicSpec) error {
	if _, queue := RawQueue(s.Name); queue {
		return invalid("topic", s.Name, "a queue that others own is not declared here: leave out \"queue:\" to make a topic of that name")
	}
	if _, raw := RawTopic(s.Name); !raw {
		if err := checkWords("topic", s.Name); err != nil {
			return err
		}
	}
	if s.Partitions < 0 {
		return invalid("partitions", "", "negative")
	}
	for _, g := range s.Groups {
		if err := CheckGroup(g); err != nil {
			return err
		}
	}
	return a.inner.Declare(ctx, s)
}

func (a *guardedAdmin) Describe(ctx context.Context, topic string) (TopicInfo, error) {
	if err := CheckTopic(topic); err != nil {
		return TopicInfo{}, err
	}
	return a.inner.Describe(ctx, topic)
}

func (a *guardedAdmin) List(ctx context.Context) ([]TopicInfo, error) { return a.inner.List(ctx) }

func (a *guardedAdmin) Delete(ctx context.Context, topic string) error {
	if err := CheckTopic(topic); err != nil {
		return err
	}
	return a.inner.Delete(ctx, topic)
}

func (a *guardedAdmin) Purge(ctx context.Context, topic, group string) error {
	if err := CheckTopic(topic); err != nil {
		return err
	}
	if err := CheckGroup(group); err != nil {
		return err
	}
	return a.inner.Purge(ctx, topic, group)
}
