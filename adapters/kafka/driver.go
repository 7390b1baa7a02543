package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// driver implements [stagebus.Driver] on one cluster.
type driver struct {
	stagebus.UnimplementedDriver
	o Options
	c *client
	d *directory

	mu        sync.Mutex
	connected bool
}

// New returns a broker for a cluster. It connects to nothing: the first producer or consumer does, and fails fast if it can't.
// Options that are wrong are [stagebus.ErrInvalid].
func New(o Options) (*stagebus.Broker, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return stagebus.NewBroker(&driver{o: o, c: c, d: newDirectory(c)}, stagebus.BrokerOptions{Stack: o.Stack}), nil
}

// Capabilities implements [stagebus.Driver].
func (d *driver) Capabilities() stagebus.Capabilities {
	return stagebus.Capabilities{
		Replay: true, History: true, Partitions: true, KeyOrder: true, Offsets: true, Tombstones: true,
		MaxMessage: d.o.MaxMessage,
	}
}

// Ping implements [stagebus.Driver].
func (d *driver) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.ConnectTimeout)
	defer cancel()
	if _, err := d.d.refresh(ctx); err != nil {
		return d.c.fail("connect", "", err)
	}
	d.mu.Lock()
	first := !d.connected
	d.connected = true
	d.mu.Unlock()
	if first {
		d.c.emit(stagebus.Event{Kind: stagebus.EventConnected})
	}
	return nil
}

// Producer implements [stagebus.Driver].
func (d *driver) Producer(ctx context.Context, o stagebus.ProducerOptions) (stagebus.Producer, error) {
	n, err := producerNative(o.Native, d.o.MaxMessage+batchAllowance)
	if err != nil {
		return nil, err
	}
	if err := d.Ping(ctx); err != nil {
		return nil, err
	}
	return newProducer(d.c, d.d, o, n), nil
}

// Consumer implements [stagebus.Driver].
func (d *driver) Consumer(ctx context.Context, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	n, err := consumerNative(o.Native, o.Drain)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(o.Topics))
	for _, t := range o.Topics {
		name, err := physical(t)
		if err != nil {
			return nil, err
		}
		if _, twice := names[name]; twice {
			return nil, &stagebus.InvalidError{Field: "ConsumerOptions.Topics", Value: t, Reason: "named twice"}
		}
		names[name] = t
	}
	if err := d.Ping(ctx); err != nil {
		return nil, err
	}
	if err := d.exist(ctx, names, o.Create); err != nil {
		return nil, err
	}
	c := newConsumer(d.c, d.d, o, n, names, d.o.MaxMessage+batchAllowance)
	if o.Mode == stagebus.Shared {
		err = c.startMember(ctx)
	} else {
		err = c.startSolo(ctx)
	}
	if err != nil {
		cleanup, cancel := context.WithCancel(context.Background())
		cancel() // don't wait
		_ = c.Close(cleanup)
		return nil, d.c.fail("consume", o.Topics[0], err)
	}
	return c, nil
}

// exist makes sure that the topics do.
func (d *driver) exist(ctx context.Context, names map[string]string, create bool) error {
	list := make([]string, 0, len(names))
	for n := range names {
		list = append(list, n)
	}
	deadline := time.Now().Add(missingFor)
	b := backoff{min: 20 * time.Millisecond, max: 200 * time.Millisecond}
	for {
		found, err := d.d.refresh(ctx, list...)
		if err != nil {
			return d.c.fail("consume", "", err)
		}
		missing := ""
		for _, n := range list {
			switch f := found[n]; {
			case f == nil || f.missing() || f.err == kgo.LeaderNotAvailable:
				missing = n
			case f.err != 0:
				return d.c.fail("consume", names[n], f.err)
			}
		}
		switch {
		case missing == "":
			return nil
		case create:
			if err := d.d.create(ctx, missing, 0, nil); err != nil {
				return err
			}
			continue
		case time.Now().After(deadline):
			return &stagebus.Error{Op: "consume", Broker: d.c.url, Topic: names[missing], Kind: stagebus.ErrNotFound,
				Cause: kgo.UnknownTopicOrPartition, Do: fmt.Sprintf("run: stagebus topics declare %s (or set Create, --create in the command)", missing)}
		}
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
}

// startMember joins the group and returns when the first lanes are positioned.
func (c *consumer) startMember(ctx context.Context) error {
	ready := make(chan error, 1)
	m := &member{c: c, k: newCoordinator(c.client, c.group)}
	m.forget()
	c.wg.Go(func() { m.run(ready) })
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), fmt.Errorf("group %q has not let this member in", c.group))
	}
}

// startSolo positions the partitions.
func (c *consumer) startSolo(ctx context.Context) error {
	s := &solo{c: c, have: map[place]bool{}}
	start := c.o.Start
	if c.o.Mode == stagebus.Ephemeral && start.Kind == stagebus.StartDefault {
		start.Kind = stagebus.StartLatest
	}
	err := s.open(ctx, start)
	c.wg.Go(s.run)
	return err
}

// Admin implements [stagebus.Driver].
func (d *driver) Admin() stagebus.Admin { return &admin{c: d.c, d: d.d} }

// Close implements [stagebus.Driver].
func (d *driver) Close(ctx context.Context) error { return d.c.close(ctx) }
