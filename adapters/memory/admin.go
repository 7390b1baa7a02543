package memory

import (
	"context"
	"slices"
	"strings"

	"github.com/stagebus/stagebus"
)

// Admin implements [stagebus.Driver].
func (d *driver) Admin() stagebus.Admin { return admin{d} }

type admin struct{ d *driver }

// Declare implements [stagebus.Admin]. Config is for other brokers and ignored; a group that is named holds what is sent from now
// on, as on RabbitMQ.
func (a admin) Declare(ctx context.Context, spec stagebus.TopicSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := refuseNative("TopicSpec", spec.Native); err != nil {
		return err
	}
	if spec.Partitions > maxPartitions {
		return tooManyPartitions(spec.Partitions)
	}
	if spec.Capacity < 0 {
		return &stagebus.InvalidError{Field: "TopicSpec.Capacity", Value: itoa(spec.Capacity), Reason: "negative"}
	}
	s := a.d.store
	s.lock()
	defer s.unlock()
	t := s.topics[spec.Name]
	switch {
	case t == nil:
		t = s.create(a.d, spec.Name, either(spec.Partitions, a.d.o.Partitions), either(spec.Capacity, a.d.o.Capacity))
	case spec.Partitions != 0 && spec.Partitions != len(t.partitions), spec.Capacity != 0 && spec.Capacity != t.capacity:
		return a.d.fail("declare", spec.Name, stagebus.ErrConflict,
			conflict{len(t.partitions), t.capacity}, "declare it as it is, or delete it first")
	}
	for _, name := range spec.Groups {
		if name = stagebus.GroupName(name); t.group(name) == nil {
			t.addGroup(name, stagebus.Start{}, nil)
		}
	}
	return nil
}

// conflict is how a topic exists that was declared otherwise.
type conflict struct{ partitions, capacity int }

func (c conflict) Error() string {
	return "it has " + itoa(c.partitions) + " partitions and a capacity of " + itoa(c.capacity)
}

func either(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// Describe implements [stagebus.Admin]. The default group is named also before its first consumer: it would get everything.
func (a admin) Describe(ctx context.Context, name string) (stagebus.TopicInfo, error) {
	if err := ctx.Err(); err != nil {
		return stagebus.TopicInfo{}, err
	}
	a.d.store.lock()
	defer a.d.store.unlock()
	t, err := a.find("describe", name)
	if err != nil {
		return stagebus.TopicInfo{}, err
	}
	return t.info(), nil
}

// List implements [stagebus.Admin], sorted by name.
func (a admin) List(ctx context.Context) ([]stagebus.TopicInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.d.store.lock()
	defer a.d.store.unlock()
	var infos []stagebus.TopicInfo
	for _, t := range a.d.store.topics {
		infos = append(infos, t.info())
	}
	slices.SortFunc(infos, func(x, y stagebus.TopicInfo) int { return strings.Compare(x.Name, y.Name) })
	return infos, nil
}

// Delete implements [stagebus.Admin].
func (a admin) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.d.store.lock()
	defer a.d.store.unlock()
	t, err := a.find("delete", name)
	if err == nil {
		a.d.store.remove(t)
	}
	return err
}

// Purge implements [stagebus.Admin]: the group's position moves to the end, its retries go, and tokens of before are stale. ErrNotFound for a
// group that doesn't exist; the default group always does.
func (a admin) Purge(ctx context.Context, name, group string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.d.store.lock()
	defer a.d.store.unlock()
	t, err := a.find("purge", name)
	if err != nil {
		return err
	}
	group = stagebus.GroupName(group)
	g := t.group(group)
	if g == nil && group == stagebus.DefaultGroup {
		g = t.addGroup(group, stagebus.Start{}, nil)
	}
	if g == nil {
		return a.d.fail("purge", name, stagebus.ErrNotFound, noGroup(group), "ask Admin.Describe which there are")
	}
	g.purge()
	return nil
}

type noGroup string

func (g noGroup) Error() string { return "the topic has no group " + string(g) }

func (a admin) find(op, name string) (*topic, error) {
	t := a.d.store.topics[name]
	if t == nil {
		return nil, a.d.fail(op, name, stagebus.ErrNotFound, nil, "declare it first")
	}
	return t, nil
}

func (t *topic) info() stagebus.TopicInfo {
	info := stagebus.TopicInfo{Name: t.name, Kind: "topic"}
	unread := stagebus.GroupInfo{Name: stagebus.DefaultGroup}
	for _, p := range t.partitions {
		info.Partitions = append(info.Partitions, stagebus.PartitionInfo{ID: p.id, First: p.first, Next: p.next})
		unread.Depth += p.next - p.first
	}
	if t.group(stagebus.DefaultGroup) == nil {
		info.Groups = append(info.Groups, unread)
	}
	for _, g := range t.groups {
		if g.name != "" {
			info.Groups = append(info.Groups, stagebus.GroupInfo{Name: g.name, Depth: g.depth(), Members: len(g.members)})
		}
	}
	slices.SortFunc(info.Groups, func(x, y stagebus.GroupInfo) int { return strings.Compare(x.Name, y.Name) })
	return info
}
