package memory

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/stagebus/stagebus"
)

// consumer implements [stagebus.Consumer]. The store's lock protects what changes.
type consumer struct {
	d       *driver
	o       stagebus.ConsumerOptions
	groups  []*group // one for each topic that exists
	lanes   []*lane
	turn    int    // lane to begin with, so that each gets its turn
	changed signal // fired when there may be something to receive, or to see for Close
	closed  bool
}

// Consumer implements [stagebus.Driver].
func (d *driver) Consumer(ctx context.Context, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	c, err := d.consumer(ctx, o)
	if err != nil {
		return nil, err // not a nil *consumer
	}
	return c, nil
}

func (d *driver) consumer(ctx context.Context, o stagebus.ConsumerOptions) (*consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := refuseNative("ConsumerOptions", o.Native); err != nil {
		return nil, err
	}
	if o.Mode == stagebus.Ephemeral {
		if k := o.Start.Kind; k != stagebus.StartDefault && k != stagebus.StartLatest {
			return nil, &stagebus.InvalidError{Field: "ConsumerOptions.Start", Reason: "an Ephemeral consumer begins now: what was sent before is read with Mode Assigned"}
		}
		o.Start.Kind = stagebus.StartLatest
	}
	o.Topics, o.Partitions = slices.Clone(o.Topics), slices.Clone(o.Partitions)

	s := d.store
	s.lock()
	defer s.unlock()
	for _, name := range o.Topics { // before anything is made
		t := s.topics[name]
		if t == nil && !o.Create {
			return nil, d.missing("consume", name, stagebus.ErrNotFound)
		}
		n := d.o.Partitions
		if t != nil {
			n = len(t.partitions)
		}
		for _, p := range o.Partitions {
			if p < 0 || int(p) >= n {
				return nil, d.fail("consume", name, stagebus.ErrNotFound, badPartition(p, n), askPartitions)
			}
		}
	}
	c := &consumer{d: d, o: o}
	for _, name := range o.Topics {
		c.subscribe(s.find(d, name, o.Create))
	}
	s.consumers[c] = struct{}{} // last, or making a topic would have subscribed it as well
	return c, nil
}

// subscribe makes c a member of its group of t, or of a private one.
func (c *consumer) subscribe(t *topic) {
	g := t.group(c.o.Group)
	if g == nil {
		g = t.addGroup(c.o.Group, c.o.Start, c.o.Partitions)
	}
	g.members = append(g.members, c)
	c.groups = append(c.groups, g)
	g.assign()
}

// Receive implements [stagebus.Consumer].
func (c *consumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	s := c.d.store
	s.lock()
	defer s.unlock()
	for {
		if c.closed {
			return 0, io.EOF
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, due := c.take(dst)
		if n > 0 {
			return n, nil
		}
		c.wait(ctx, due)
	}
}

// wait gives the lock up until something has changed for c, or is due, or ctx has ended.
func (c *consumer) wait(ctx context.Context, due time.Time) {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	changed := c.changed.wait()
	c.d.store.unlock()
	defer c.d.store.lock()
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
	}
}

// take fills dst with what is there and fits the prefetch bounds. If there is nothing, due is when the next retry is (zero: none).
func (c *consumer) take(dst []stagebus.Delivery) (n int, due time.Time) {
	held := c.held()
	dst = dst[:max(0, min(len(dst), c.o.Prefetch-int(held.n)))]
	if len(dst) == 0 {
		return 0, due // something must be settled first
	}
	now := time.Now()
	first := c.turn
	c.turn++
	for i := range c.lanes {
		l := c.lanes[(first+i)%len(c.lanes)]
		for {
			size, at, ok := l.peek(now)
			if !ok {
				if !at.IsZero() && (due.IsZero() || at.Before(due)) {
					due = at
				}
				break
			}
			if held.n > 0 && held.bytes+size > int64(c.o.PrefetchBytes) {
				// It gets the next turn, or smaller messages of other lanes would pass it for ever.
				c.turn = first + i
				return n, due
			}
			held.add(load{1, size})
			l.pop(&dst[n])
			if n++; n == len(dst) {
				return n, due
			}
		}
	}
	return n, due
}

func (c *consumer) held() load {
	var held load
	for _, l := range c.lanes {
		held.add(l.held())
	}
	return held
}

// forget takes a sealed lane off the list.
func (c *consumer) forget(l *lane) {
	c.lanes = slices.DeleteFunc(c.lanes, func(x *lane) bool { return x == l })
	c.changed.fire()
}

// Flush implements [stagebus.Consumer]: each Settle is known at once.
func (c *consumer) Flush(context.Context) error { return nil }

// Close implements [stagebus.Consumer]. It returns the context's error if that ended before the drain time.
func (c *consumer) Close(ctx context.Context) error {
	s := c.d.store
	s.lock()
	defer s.unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(s.consumers, c)
	groups := c.groups
	c.groups = nil
	for _, g := range groups {
		g.members = slices.DeleteFunc(g.members, func(x *consumer) bool { return x == c })
		g.assign() // drains all of c's lanes
	}
	c.changed.fire()
	var err error
	for len(c.lanes) > 0 {
		if err = s.wait(ctx, &c.changed); err != nil {
			for _, l := range slices.Clone(c.lanes) {
				l.seal()
			}
		}
	}
	for _, g := range groups {
		if g.name == "" {
			g.remove()
		}
	}
	return err
}
