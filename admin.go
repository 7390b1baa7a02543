package stagebus

import "context"

// Admin declares and inspects topics. All methods are safe for concurrent use.
type Admin interface {
	// Declare makes what is missing: the topic, and the groups' places on brokers that need them before the first
	// message. Declaring again is nil; other properties are ErrConflict.
	Declare(context.Context, TopicSpec) error
	// Describe returns ErrNotFound for a topic that doesn't exist.
	Describe(ctx context.Context, topic string) (TopicInfo, error)
	// List returns topics with what is known without asking for each; internal ones of the broker are left out.
	List(context.Context) ([]TopicInfo, error)
	// Delete removes a topic and its groups' places on the broker, but not its dead letters. ErrNotFound if there is none.
	Delete(ctx context.Context, topic string) error
	// Purge drops what a group has not settled yet (empty: [DefaultGroup]).
	Purge(ctx context.Context, topic, group string) error
}

// TopicSpec is a topic to declare.
type TopicSpec struct {
	Name       string
	Partitions int      // 0: the broker's default
	Groups     []string // besides the default group
	Capacity   int      // memory only: messages that an unread topic holds before Submit waits; 0: 65,536
	Config     map[string]string
	Native     any
}

// TopicInfo is what a broker says of a topic. Fields that it doesn't know are zero.
type TopicInfo struct {
	Name       string
	Kind       string // "topic", "classic queue", "quorum queue"…
	Partitions []PartitionInfo
	Groups     []GroupInfo
}

// PartitionInfo is one partition of a topic: First is the offset of the earliest message kept, Next that of the next one sent.
type PartitionInfo struct {
	ID          int32
	First, Next int64
}

// GroupInfo is one group of a topic: Depth is the number of messages that it has not settled (lag), Members how many consume.
type GroupInfo struct {
	Name    string
	Depth   int64
	Members int
}

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
