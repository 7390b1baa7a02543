package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/deletetopics"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/listgroups"

	"github.com/stagebus/stagebus"
)

// admin implements [stagebus.Admin]. Groups need no place on a Kafka broker: Declare ignores them.
type admin struct {
	c *client
	d *directory
}

// Declare implements [stagebus.Admin].
func (a *admin) Declare(ctx context.Context, s stagebus.TopicSpec) error {
	name, err := physical(s.Name)
	if err != nil {
		return err
	}
	if s.Native != nil {
		return &stagebus.InvalidError{Field: "TopicSpec.Native", Value: fmt.Sprintf("%T", s.Native), Reason: "a Kafka topic has none: use Config"}
	}
	if err := a.d.create(ctx, name, s.Partitions, s.Config); err != nil {
		return err
	}
	if t := a.d.known(name); s.Partitions > 0 && t != nil && len(t.leaders) != s.Partitions {
		return &stagebus.Error{Op: "declare", Broker: a.c.url, Topic: s.Name, Kind: stagebus.ErrConflict,
			Cause: fmt.Errorf("it has %d partitions, not %d", len(t.leaders), s.Partitions),
			Do:    "leave out the number, or delete the topic first"}
	}
	return nil
}

// Describe implements [stagebus.Admin].
func (a *admin) Describe(ctx context.Context, topic string) (stagebus.TopicInfo, error) {
	info := stagebus.TopicInfo{Name: topic, Kind: "topic"}
	name, at, err := a.partitions(ctx, "describe", topic)
	if err != nil {
		return info, err
	}
	first, err := a.d.offsets(ctx, at, offsetEarliest)
	if err != nil {
		return info, a.c.fail("describe", topic, err)
	}
	next, err := a.d.offsets(ctx, at, offsetLatest)
	if err != nil {
		return info, a.c.fail("describe", topic, err)
	}
	for _, p := range at {
		info.Partitions = append(info.Partitions, stagebus.PartitionInfo{ID: p.partition, First: first[p], Next: next[p]})
	}
	groups, err := a.groups(ctx)
	if err != nil {
		return info, a.c.fail("describe", topic, err)
	}
	for _, g := range groups {
		gi, ok, err := a.group(ctx, g, name, at, first, next)
		if err != nil {
			return info, a.c.fail("describe", topic, err)
		}
		if ok {
			info.Groups = append(info.Groups, gi)
		}
	}
	return info, nil
}

// partitions lists the partitions of a topic that exists.
func (a *admin) partitions(ctx context.Context, op, topic string) (name string, at []place, err error) {
	if name, err = physical(topic); err != nil {
		return "", nil, err
	}
	found, err := a.d.refresh(ctx, name)
	if err != nil {
		return "", nil, a.c.fail(op, topic, err)
	}
	t := found[name]
	if t == nil || t.err != 0 {
		cause := kgo.UnknownTopicOrPartition
		if t != nil {
			cause = t.err
		}
		return "", nil, a.c.fail(op, topic, cause)
	}
	for p := range t.leaders {
		at = append(at, place{name, int32(p)})
	}
	return name, at, nil
}

// groups asks every broker for the groups that it coordinates.
func (a *admin) groups(ctx context.Context) ([]string, error) {
	var names []string
	for _, node := range a.d.nodes() {
		m, err := a.c.ask(ctx, node, &listgroups.Request{})
		if err != nil {
			return nil, err
		}
		r := m.(*listgroups.Response)
		if r.ErrorCode != 0 {
			return nil, kgo.Error(r.ErrorCode)
		}
		for _, g := range r.Groups {
			names = append(names, g.GroupID)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// group describes one group's part in a topic; ok is false if it has none.
func (a *admin) group(ctx context.Context, group, topic string, at []place, first, next map[place]int64) (g stagebus.GroupInfo, ok bool, err error) {
	k := newCoordinator(a.c, group)
	committed, err := k.committed(ctx, at)
	if err != nil || len(committed) == 0 {
		return g, false, err
	}
	g.Name = group
	for _, p := range at {
		from, has := committed[p]
		if !has {
			from = first[p]
		}
		g.Depth += max(0, next[p]-max(from, first[p]))
	}
	node, err := k.find(ctx)
	if err != nil {
		return g, false, err
	}
	m, err := a.c.ask(ctx, node, &describegroups.Request{Groups: []string{group}})
	if err != nil {
		return g, false, err
	}
	for _, d := range m.(*describegroups.Response).Groups {
		for _, member := range d.Members {
			sub, err := decodeSubscription(member.MemberMetadata, Range)
			if err == nil && slices.Contains(sub.topics, topic) {
				g.Members++
			}
		}
	}
	return g, true, nil
}

// List implements [stagebus.Admin].
func (a *admin) List(ctx context.Context) ([]stagebus.TopicInfo, error) {
	all, err := a.d.all(ctx)
	if err != nil {
		return nil, a.c.fail("list", "", err)
	}
	var infos []stagebus.TopicInfo
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, "__") {
			continue // the brokers' own, also where they aren't marked
		}
		info := stagebus.TopicInfo{Name: portable(name), Kind: "topic"}
		for p := range all[name].leaders {
			info.Partitions = append(info.Partitions, stagebus.PartitionInfo{ID: int32(p)})
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// portable is the name to call a Kafka topic by.
func portable(name string) string {
	if stagebus.CheckTopic(name) != nil {
		return "topic:" + name
	}
	return name
}

// Delete implements [stagebus.Admin].
func (a *admin) Delete(ctx context.Context, topic string) error {
	name, _, err := a.partitions(ctx, "delete", topic)
	if err != nil {
		return err
	}
	all, err := a.d.all(ctx)
	if err != nil {
		return a.c.fail("delete", topic, err)
	}
	names := []string{name}
	for other := range all {
		if retryOf(other, name) {
			names = append(names, other)
		}
	}
	a.d.mu.Lock()
	node := a.d.controller
	a.d.mu.Unlock()
	m, err := a.c.ask(ctx, node, &deletetopics.Request{TopicNames: names, TimeoutMs: int32(a.c.timeout.Milliseconds())})
	if err != nil {
		return a.c.fail("delete", topic, err)
	}
	for _, r := range m.(*deletetopics.Response).Responses {
		if code := kgo.Error(r.ErrorCode); code != 0 && (code != kgo.UnknownTopicOrPartition || r.Name == name) {
			return a.c.fail("delete", r.Name, code)
		}
	}
	// Gone is when nobody is told of it any more.
	return a.settled(ctx, names)
}

func (a *admin) settled(ctx context.Context, names []string) error {
	b := backoff{min: 10 * time.Millisecond, max: 200 * time.Millisecond}
	for {
		found, err := a.d.refresh(ctx, names...)
		left := false
		for _, t := range found {
			left = left || !t.missing()
		}
		if err == nil && !left {
			return nil
		}
		if e := b.wait(ctx); e != nil {
			return a.c.fail("delete", names[0], errors.Join(e, err))
		}
	}
}

// retryOf says that a topic is a retry topic of some group of another.
func retryOf(name, topic string) bool {
	rest, ok := strings.CutPrefix(name, topic+"--")
	if !ok {
		return false
	}
	group, ms, ok := strings.Cut(rest, "--retry-")
	return ok && stagebus.CheckGroup(group) == nil && group != "" && ms != "" && strings.Trim(ms, "0123456789") == ""
}

// Purge implements [stagebus.Admin]. It fails with [stagebus.ErrRefused] while the group has members: they would go on
// from where they are.
func (a *admin) Purge(ctx context.Context, topic, group string) error {
	name, at, err := a.partitions(ctx, "purge", topic)
	if err != nil {
		return err
	}
	found, err := a.d.refresh(ctx, retryTopics(name, stagebus.GroupName(group))...)
	if err != nil {
		return a.c.fail("purge", topic, err)
	}
	for rt, t := range found {
		if t.err == 0 {
			for p := range t.leaders {
				at = append(at, place{rt, int32(p)})
			}
		}
	}
	ends, err := a.d.offsets(ctx, at, offsetLatest)
	if err != nil {
		return a.c.fail("purge", topic, err)
	}
	k := newCoordinator(a.c, stagebus.GroupName(group))
	err = retry(ctx, func() error { return k.commit(ctx, identity{generation: -1}, ends) })
	var code kgo.Error
	if errors.As(err, &code) && lost(code) {
		return &stagebus.Error{Op: "purge", Broker: a.c.url, Topic: topic, Kind: stagebus.ErrRefused, Cause: err,
			Do: fmt.Sprintf("group %q has members: stop them first", stagebus.GroupName(group))}
	}
	return a.c.fail("purge", topic, err)
}
