package amqp

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ladder"
)

// admin is the stagebus.Admin. It works on the consuming connection, which the broker never blocks.
type admin struct{ d *driver }

func (d *driver) Admin() stagebus.Admin { return &admin{d} }

// Declare makes the queue of the default group and those of the others, bound to the topic.
func (a *admin) Declare(ctx context.Context, spec stagebus.TopicSpec) error {
	d := a.d
	unsupported := func(do string) error { return d.fail("declare", spec.Name, stagebus.ErrUnsupported, nil, do) }
	switch {
	case spec.Partitions > 1:
		return unsupported("a RabbitMQ topic has no partitions: leave their number out")
	case len(spec.Config) > 0:
		return unsupported("set limits and TTLs by a policy (rabbitmqctl set_policy), which can be changed later")
	}
	native, checked, err := topicSpec(d, spec.Native)
	if err != nil {
		return err
	}
	groups := append([]string{stagebus.DefaultGroup}, spec.Groups...)
	places := make([]place, 0, len(groups))
	for _, group := range groups {
		p, err := d.placeOf("declare", spec.Name, group)
		if err != nil {
			return err
		}
		if native.QueueType != "" {
			p.queueType = native.QueueType
		}
		p.single = native.SingleActiveConsumer
		places = append(places, p)
	}
	s, err := d.consume.open(ctx)
	if err != nil {
		return err
	}
	for _, p := range places {
		err := d.ensure(ctx, s, p)
		if err == nil && checked {
			err = s.checkAs(ctx, p)
		}
		if err != nil {
			return d.fail("declare", spec.Name, nil, err, "")
		}
		d.note(p.topic, p.group)
	}
	return nil
}

func topicSpec(d *driver, native any) (spec TopicSpec, given bool, err error) {
	switch n := native.(type) {
	case nil:
		return spec, false, nil
	case TopicSpec:
		spec = n
	case *TopicSpec:
		if n != nil {
			spec = *n
		}
	default:
		return spec, false, d.wrongNative("want amqp.TopicSpec", n)
	}
	return spec, true, checkQueueType(spec.QueueType)
}

// checkAs returns ErrConflict if p's queue, which exists, has other properties than those asked for. Declaring it in that very way tells.
func (s *session) checkAs(ctx context.Context, p place) error {
	var err error
	for _, args := range s.server.arguments(p) {
		if err = s.declareAs(ctx, p.queue, args); code(err) != amqp091.PreconditionFailed {
			return err
		}
	}
	return s.config.fail("declare", p.topic, stagebus.ErrConflict, err, "delete it first, or leave TopicSpec.Native out to use it as it is")
}

// groupsOf returns the groups of a topic that can be known: those that this process has seen, and all others if the management API answers.
// Its error is why the others aren't known.
func (a *admin) groupsOf(ctx context.Context, topic string) (groups []string, queues map[string]managedQueue, err error) {
	set := map[string]bool{stagebus.DefaultGroup: true}
	a.d.mu.Lock()
	for g := range a.d.groups[topic] {
		set[g] = true
	}
	a.d.mu.Unlock()
	list, err := a.d.managedQueues(ctx)
	queues = make(map[string]managedQueue, len(list))
	for _, q := range list {
		queues[q.Name] = q
		if group, ok := groupOf(q.Name, topic); ok {
			set[group] = true
		}
	}
	return slices.Sorted(maps.Keys(set)), queues, err
}

// Describe looks at the queues of a topic. Depth counts what is queued, without what consumers hold. Groups of others, and the type of a
// queue, are known if the management API answers.
func (a *admin) Describe(ctx context.Context, topic string) (stagebus.TopicInfo, error) {
	d := a.d
	if _, err := d.placeOf("describe", topic, ""); err != nil {
		return stagebus.TopicInfo{}, err
	}
	s, err := d.consume.open(ctx)
	if err != nil {
		return stagebus.TopicInfo{}, err
	}
	_, raw := stagebus.RawQueue(topic)
	groups, queues, missing := a.groupsOf(ctx, topic)
	if missing != nil {
		d.emit(stagebus.Event{Kind: stagebus.EventError, Topic: topic, Err: missing})
	}
	info := stagebus.TopicInfo{Name: topic, Kind: "queue"}
	for _, group := range groups {
		if raw && group != stagebus.DefaultGroup {
			continue
		}
		p, err := d.placeOf("describe", topic, group)
		if err != nil {
			continue // a group of a name that can't be one of ours
		}
		q, err := s.inspect(ctx, p.queue)
		if code(err) == amqp091.NotFound {
			continue
		}
		if err != nil {
			return stagebus.TopicInfo{}, d.fail("describe", topic, nil, err, "")
		}
		info.Groups = append(info.Groups, stagebus.GroupInfo{Name: group, Depth: int64(q.Messages), Members: q.Consumers})
		if m, ok := queues[p.queue]; ok && m.Type != "" {
			info.Kind = m.Type + " queue"
		}
	}
	if len(info.Groups) == 0 {
		return stagebus.TopicInfo{}, d.fail("describe", topic, stagebus.ErrNotFound, nil, "declare it first: stagebus topics declare "+topic)
	}
	return info, nil
}

// Delete removes the queues of a topic's groups with their retry queues, and keeps the dead letters. Groups that this process hasn't
// seen are known from the management API alone: where it can't be reached they stay, and the hook is told.
func (a *admin) Delete(ctx context.Context, topic string) error {
	d := a.d
	if _, err := d.placeOf("delete", topic, ""); err != nil {
		return err
	}
	s, err := d.consume.open(ctx)
	if err != nil {
		return err
	}
	groups, _, unknown := a.groupsOf(ctx, topic)
	if unknown != nil {
		d.emit(stagebus.Event{Kind: stagebus.EventError, Topic: topic, Err: unknown})
	}
	found := false
	for _, group := range groups {
		p, err := d.placeOf("delete", topic, group)
		if err != nil {
			continue
		}
		if _, err := s.inspect(ctx, p.queue); err == nil {
			found = true
		} else if code(err) != amqp091.NotFound {
			return d.fail("delete", topic, nil, err, "")
		}
		names := []string{p.queue}
		for _, step := range retrySteps {
			names = append(names, stagebus.RetryTopic(topic, group)+ladder.Millis(step))
		}
		err = s.scratch(ctx, func(ch *amqp091.Channel) error {
			for _, name := range names {
				if len(name) > maxShort {
					continue // can't exist, and would end the connection
				}
				if _, err := ch.QueueDelete(name, false, false, false); err != nil { // none is no error
					return err
				}
			}
			return nil
		})
		if err != nil {
			return d.fail("delete", topic, nil, err, "")
		}
		for _, name := range names {
			d.forgetQueue(name)
		}
	}
	d.mu.Lock()
	delete(d.groups, topic)
	d.mu.Unlock()
	if !found {
		return d.fail("delete", topic, stagebus.ErrNotFound, nil, "")
	}
	return nil
}

// Purge empties a group's queue, except for what consumers hold.
func (a *admin) Purge(ctx context.Context, topic, group string) error {
	d := a.d
	p, err := d.placeOf("purge", topic, group)
	if err != nil {
		return err
	}
	s, err := d.consume.open(ctx)
	if err != nil {
		return err
	}
	err = s.scratch(ctx, func(ch *amqp091.Channel) error {
		_, err := ch.QueuePurge(p.queue, false)
		return err
	})
	if err != nil {
		return d.fail("purge", topic, nil, err, "")
	}
	return nil
}

// List asks the management API, since the protocol can't. Queues with names that no topic can have are listed as "queue:NAME".
func (a *admin) List(ctx context.Context) ([]stagebus.TopicInfo, error) {
	queues, err := a.d.managedQueues(ctx)
	if err != nil {
		return nil, err
	}
	topics := map[string]*stagebus.TopicInfo{}
	for _, q := range queues {
		name, group, ok := q.topic()
		if !ok {
			continue
		}
		t := topics[name]
		if t == nil {
			t = &stagebus.TopicInfo{Name: name}
			topics[name] = t
		}
		if t.Kind == "" || group == stagebus.DefaultGroup {
			t.Kind = "queue"
			if q.Type != "" {
				t.Kind = q.Type + " queue"
			}
		}
		t.Groups = append(t.Groups, stagebus.GroupInfo{Name: group, Depth: q.Messages, Members: q.Consumers})
	}
	infos := make([]stagebus.TopicInfo, 0, len(topics))
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		infos = append(infos, *topics[name])
	}
	return infos, nil
}

var errNoManagement = errors.New("the management API gave no list of queues")
