package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// driver is the stagebus.Driver. It holds the two connections, and what is shared by those who use them.
type driver struct {
	stagebus.UnimplementedDriver
	*config
	publish, consume *link
	control          *publisher    // of the copies that Retry and Reject make
	declaring        chan struct{} // held while a queue is declared

	mu     sync.Mutex
	groups map[string]map[string]bool // topic -> groups that this process has seen
	queues map[string]bool            // retry and dead-letter queues that exist
}

// The window of copies that Retry and Reject have on their way, for all consumers together.
const (
	controlWindow      = 1024
	controlWindowBytes = 16 << 20
)

func (d *driver) Producer(ctx context.Context, o stagebus.ProducerOptions) (stagebus.Producer, error) {
	mode, err := d.deliveryMode(o.Native)
	if err != nil {
		return nil, err
	}
	if _, err := d.publish.open(ctx); err != nil {
		return nil, err
	}
	return &producer{
		publisher: d.newPublisher(o.Window, o.WindowBytes, pipesPerProducer), d: d, create: o.Create, made: map[string]bool{}, mode: mode,
	}, nil
}

// deliveryMode reads the Native options of a producer.
func (d *driver) deliveryMode(native any) (uint8, error) {
	var o ProducerOptions
	switch n := native.(type) {
	case nil:
	case ProducerOptions:
		o = n
	case *ProducerOptions:
		if n != nil {
			o = *n
		}
	default:
		return 0, d.wrongNative("want amqp.ProducerOptions", native)
	}
	if o.UnsafeTransient {
		return amqp091.Transient, nil
	}
	return amqp091.Persistent, nil
}

// Server is the product and the version that the server says it is, for those who look at the driver; empty before the first connection.
func (d *driver) Server() string { return d.serverInfo().text }

func (d *driver) Capabilities() stagebus.Capabilities {
	return stagebus.Capabilities{KeyOrder: true, MaxMessage: d.serverInfo().maxMessage()}
}

// Ping has the broker open a channel and close it.
func (d *driver) Ping(ctx context.Context) error {
	s, err := d.consume.open(ctx)
	if err != nil {
		return err
	}
	if err := s.scratch(ctx, func(*amqp091.Channel) error { return nil }); err != nil {
		return d.fail("ping", "", nil, err, "")
	}
	return nil
}

func (d *driver) Close(ctx context.Context) error {
	err := d.control.close(ctx)
	// Both goodbyes at once: each waits for the broker.
	var wg sync.WaitGroup
	wg.Go(func() { d.publish.close(ctx) })
	wg.Go(func() { d.consume.close(ctx) })
	wg.Wait()
	return err
}

func (d *driver) wrongNative(want string, got any) error {
	return &stagebus.InvalidError{Field: "Native", Value: fmt.Sprintf("%T", got), Reason: want}
}

// ensure is [session.ensure], one at a time: a quorum queue that is declared twice at once refuses messages for a while.
func (d *driver) ensure(ctx context.Context, s *session, p place) error {
	select {
	case d.declaring <- struct{}{}:
		defer func() { <-d.declaring }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.ensure(ctx, p)
}

// note remembers that a topic has a group, for Describe and Delete where the management API can't be reached.
func (d *driver) note(topic, group string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.groups[topic] == nil {
		if len(d.groups) >= routesMax {
			clear(d.groups)
		}
		d.groups[topic] = map[string]bool{}
	}
	d.groups[topic][group] = true
}

// copies publishes the copies that a verdict makes, and returns an error for each that isn't durable. What the broker refuses is tried again for
// a moment: a queue that two processes declare at once refuses messages until it has settled.
func (d *driver) copies(ctx context.Context, pubs []publication) []error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, copyTimeout)
		defer cancel()
	}
	errs := make([]error, len(pubs))
	open := make([]int, len(pubs)) // of pubs
	for i := range open {
		open[i] = i
	}
	var pause backoff
	for try := 0; len(open) > 0; try++ {
		batch := make([]publication, len(open))
		for n, i := range open {
			p := &pubs[i]
			batch[n] = publication{topic: p.topic, queue: p.queue, via: direct, msg: p.msg, size: p.size, lane: p.lane}
		}
		var refused []int
		for n, err := range d.copyOnce(ctx, batch) {
			if errs[open[n]] = err; errors.Is(err, stagebus.ErrRefused) {
				refused = append(refused, open[n])
			}
		}
		if open = refused; try == copyTries || len(open) == 0 || !pause.sleep(ctx) {
			break
		}
	}
	return errs
}

func (d *driver) copyOnce(ctx context.Context, pubs []publication) []error {
	errs := make([]error, len(pubs))
	result := make(chan []stagebus.Outcome, 1)
	_, err := d.publish.open(ctx)
	if err == nil {
		err = d.control.submit(ctx, pubs, func(os []stagebus.Outcome) { result <- os })
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i, o := range <-result {
		errs[i] = o.Err
	}
	return errs
}

// copyTries is how often a refused copy is tried again.
const copyTries = 4

// copyTimeout bounds a verdict whose context has no deadline, like the delivery time-out of a producer.
const copyTimeout = 30 * time.Second

func isNoRoute(err error) bool { return errors.Is(err, stagebus.ErrNoRoute) }
