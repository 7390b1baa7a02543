package amqp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/stagebus/stagebus"
)

// consumer is the stagebus.Consumer: for each topic a subscription, which has one lane after the other.
type consumer struct {
	d      *driver
	o      stagebus.ConsumerOptions
	native ConsumerOptions

	prefetch int // of each lane
	ackBatch int // settlements that are told at once

	ctx    context.Context // ends when closing begins
	cancel context.CancelFunc
	wg     sync.WaitGroup // subscriptions, and their lanes' goroutines
	wake   chan struct{}

	mu     sync.Mutex // protects the following
	closed bool
	ready  []arrival // received, not handed out
	lanes  map[*lane]struct{}
	lost   int // settlements that never got to the broker, since the last Flush
}

// arrival is a delivery on its way to Receive.
type arrival struct {
	lane     *lane
	arrived  arrived
	delivery stagebus.Delivery
}

// Consumer implements stagebus.Driver.
func (d *driver) Consumer(ctx context.Context, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	c := &consumer{d: d, o: o, wake: make(chan struct{}, 1), lanes: map[*lane]struct{}{}}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.prefetch = min(max(o.Prefetch/len(o.Topics), 1), 65535)
	c.ackBatch = min(max(c.prefetch/4, 1), 64)
	var subs []*subscription
	for _, topic := range o.Topics {
		sub, err := c.subscription(topic)
		if err != nil {
			return nil, err
		}
		subs = append(subs, sub)
	}
	s, err := d.consume.open(ctx)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for _, sub := range subs {
		l, err := sub.attach(ctx, s, true)
		if err != nil {
			return nil, errors.Join(d.fail("consume", sub.place.topic, nil, err, sub.advice(err)), c.Close(ctx))
		}
		c.add(l)
		c.wg.Go(func() { sub.run(l) })
		if sub.place.group != "" && !sub.place.foreign {
			d.note(sub.place.topic, sub.place.group)
		}
	}
	return c, nil
}

// check refuses what RabbitMQ can't do.
func (c *consumer) check() error {
	unsupported := func(do string) error {
		return c.d.fail("consume", c.o.Topics[0], stagebus.ErrUnsupported, nil, do)
	}
	switch {
	case c.o.Mode == stagebus.Assigned:
		return unsupported("RabbitMQ has no partitions to assign: use a group, or Ephemeral")
	case c.o.Start.Kind != stagebus.StartDefault && c.o.Start.Kind != stagebus.StartLatest:
		return unsupported("RabbitMQ can't replay: a group gets what is queued for it; leave Start at its default")
	}
	switch n := c.o.Native.(type) {
	case nil:
	case ConsumerOptions:
		c.native = n
	case *ConsumerOptions:
		if n != nil {
			c.native = *n
		}
	default:
		return c.d.wrongNative("want amqp.ConsumerOptions", n)
	}
	return checkQueueType(c.native.QueueType)
}

// add makes a lane the consumer's; false: the consumer has closed.
func (c *consumer) add(l *lane) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.lanes[l] = struct{}{}
	c.wg.Go(l.tell)
	c.mu.Unlock()
	c.d.emit(stagebus.Event{Kind: stagebus.EventAssigned, Topic: l.place.topic, Group: l.info.Group, N: l.info.Epoch})
	return true
}

// remove takes a lane that ended away, with what it has not handed out: the broker delivers that again.
func (c *consumer) remove(l *lane, untold int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lanes, l)
	c.lost += untold
	kept := c.ready[:0]
	for _, a := range c.ready {
		if a.lane != l {
			kept = append(kept, a)
		}
	}
	clear(c.ready[len(kept):])
	c.ready = kept
	signal(c.wake) // what it pinned is free
}

func (c *consumer) arrive(a arrival) {
	c.mu.Lock()
	if _, live := c.lanes[a.lane]; live && !c.closed {
		c.ready = append(c.ready, a)
	}
	c.mu.Unlock()
	signal(c.wake)
}

func (c *consumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	for {
		n, more, closed := c.take(dst)
		switch {
		case closed:
			return 0, io.EOF
		case n > 0:
			if more { // for whoever else waits
				signal(c.wake)
			}
			return n, nil
		}
		select {
		case <-c.wake:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// take hands out what is ready, while the open deliveries pin less than the budget.
func (c *consumer) take(dst []stagebus.Delivery) (n int, more, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, false, true
	}
	if len(c.ready) == 0 {
		return 0, false, false
	}
	var pinned int64
	for l := range c.lanes {
		_, bytes, _ := l.ledger.Open()
		pinned += bytes
	}
	taken := 0
	for n < len(dst) && taken < len(c.ready) {
		a := &c.ready[taken]
		size := a.delivery.Size()
		if pinned > 0 && pinned+int64(size) > int64(c.o.PrefetchBytes) {
			break
		}
		taken++
		seq, ok := a.lane.ledger.Add(int64(a.arrived.raw.DeliveryTag), size, a.arrived)
		if !ok {
			continue // the lane is ending: it comes again
		}
		pinned += int64(max(size, 1))
		dst[n] = a.delivery
		dst[n].Token = stagebus.Token{Lane: a.lane, Seq: seq}
		n++
	}
	clear(c.ready[:taken])
	if c.ready = c.ready[taken:]; len(c.ready) == 0 {
		c.ready = nil
	}
	return n, len(c.ready) > 0, false
}

func (c *consumer) Flush(ctx context.Context) error {
	c.mu.Lock()
	lost := c.lost
	c.lost = 0
	lanes := make([]*lane, 0, len(c.lanes))
	for l := range c.lanes {
		lanes = append(lanes, l)
	}
	c.mu.Unlock()
	var errs []error
	if lost > 0 {
		errs = append(errs, c.d.fail("flush", "", stagebus.ErrStale, fmt.Errorf("%d settlements were lost with their connection", lost),
			"these messages will be delivered again"))
	}
	for _, l := range lanes {
		err := l.sync(ctx)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			c.mu.Lock()
			c.lost += lost // the next one tells
			c.mu.Unlock()
			return ctx.Err()
		default:
			errs = append(errs, c.d.fail("flush", l.place.topic, stagebus.ErrStale, err,
				"the connection was lost: what was settled last may be delivered again"))
		}
	}
	return errors.Join(errs...)
}

func (c *consumer) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.ready = nil
	lanes := make([]*lane, 0, len(c.lanes))
	for l := range c.lanes {
		lanes = append(lanes, l)
	}
	c.mu.Unlock()
	c.cancel() // Receive ends, and subscriptions look for no more lanes

	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { errs[i] = l.finish(ctx, c.o.Drain) })
	}
	wg.Wait()
	if err := wait(ctx, &c.wg); err != nil {
		errs = append(errs, c.d.fail("close", c.o.Topics[0], nil, err, ""))
	}
	return errors.Join(errs...)
}

// wait waits for wg until ctx ends. What is late then ends by itself, since every session does.
func wait(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		select {
		case <-done:
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}
