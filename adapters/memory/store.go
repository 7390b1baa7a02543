package memory

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"github.com/stagebus/stagebus"
)

// store is the broker proper. One mutex protects all of it, topics, groups and lanes alike: a transaction touches several
// topics at once, a rebalance several consumers, and with batches the lock is taken once for hundreds of messages.
type store struct {
	mu        sync.Mutex // protects the following, and everything that hangs on it
	topics    map[string]*topic
	consumers map[*consumer]struct{} // those that are open, also while a topic of theirs is missing
	events    []event                // to be emitted once the lock is free
}

type event struct {
	hook stagebus.Hook
	stagebus.Event
}

func newStore() *store {
	return &store{topics: map[string]*topic{}, consumers: map[*consumer]struct{}{}}
}

func (s *store) lock() { s.mu.Lock() }

// unlock frees the store and then tells the hooks: a hook may call the broker.
func (s *store) unlock() {
	es := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range es {
		e.hook(e.Event)
	}
}

// emit has d's hook told when the lock is freed.
func (s *store) emit(d *driver, e stagebus.Event) {
	if d.o.Hook != nil {
		e.Broker = d.url
		s.events = append(s.events, event{d.o.Hook, e})
	}
}

// wait gives the lock up until sig is fired, or returns the cause when ctx ends. It holds the lock again when it returns.
func (s *store) wait(ctx context.Context, sig *signal) error {
	ch := sig.wait()
	s.unlock()
	defer s.lock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// find returns a topic, made with d's defaults if it is missing and create is set, or nil.
func (s *store) find(d *driver, name string, create bool) *topic {
	t := s.topics[name]
	if t == nil && create {
		t = s.create(d, name, d.o.Partitions, d.o.Capacity)
	}
	return t
}

// create makes a topic, and consumers that wait for one of that name resume.
func (s *store) create(d *driver, name string, partitions, capacity int) *topic {
	t := &topic{s: s, name: name, capacity: capacity, limit: int64(d.o.CapacityBytes)}
	for i := range partitions {
		t.partitions = append(t.partitions, &partition{topic: name, id: int32(i)})
	}
	s.topics[name] = t
	for c := range s.consumers {
		if slices.Contains(c.o.Topics, name) {
			c.subscribe(t)
		}
	}
	return t
}

// remove forgets a topic: its tokens are stale, its consumers wait for another of that name.
func (s *store) remove(t *topic) {
	delete(s.topics, t.name)
	for _, g := range slices.Clone(t.groups) {
		for _, c := range g.members {
			s.emit(c.d, stagebus.Event{Kind: stagebus.EventMissing, Topic: t.name, Group: g.name})
			c.groups = slices.DeleteFunc(c.groups, func(x *group) bool { return x == g })
		}
		g.remove()
	}
	t.room.fire()
}

// signal wakes all who wait. It costs nothing while nobody does. The store's lock protects it.
type signal struct{ ch chan struct{} }

func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

func itoa[T int | int32 | int64](n T) string { return strconv.FormatInt(int64(n), 10) }
