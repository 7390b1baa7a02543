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
	control          *publisher // of the copies that Retry and Reject make

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
	if o.Native != nil {
		return nil, d.wrongNative("amqp has no ProducerOptions of its own", o.Native)
	}
	if _, err := d.publish.open(ctx); err != nil {
		return nil, err
	}
	return &producer{
		publisher: d.newPublisher(o.Window, o.WindowBytes, pipesPerProducer), create: o.Create, made: map[string]bool{},
	}, nil
}

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

// copies publishes the copies that a verdict makes, and returns an error for each that isn't durable.
func (d *driver) copies(ctx context.Context, pubs []publication) []error {
	errs := make([]error, len(pubs))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if _, err := d.publish.open(ctx); err != nil {
		return all(err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, copyTimeout)
		defer cancel()
	}
	result := make(chan []stagebus.Outcome, 1)
	if err := d.control.submit(ctx, pubs, func(os []stagebus.Outcome) { result <- os }); err != nil {
		return all(err)
	}
	for i, o := range <-result {
		errs[i] = o.Err
	}
	return errs
}

// copyTimeout bounds a verdict whose context has no deadline, like the delivery time-out of a producer.
const copyTimeout = 30 * time.Second

func isNoRoute(err error) bool { return errors.Is(err, stagebus.ErrNoRoute) }
