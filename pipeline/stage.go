package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/stagebus/stagebus"
)

// Handler handles one delivery and returns what to send and how to settle the input. The zero Verdict is Release.
//
// The outputs are sent first, whatever the verdict, and the input is settled when all of them are durable. With [stagebus.Retry] and
// [stagebus.Release] the message comes again and so, normally, do its outputs. The returned slice, and the bytes that its messages
// point at, are Run's from then on: the handler must not change them again. They may be those of d.
//
// d is the handler's until it returns; it has no Err. ctx ends when the result can't be used any more: with [stagebus.ErrStale] as its
// cause when the lane of d has ended, with [ErrDrain] when the stage's drain time is over. It has the values of Run's context, not its end. What a
// handler returns after that is dropped; the message comes again.
//
// Release gives back what waits behind the message in its key too, so that they come again in their order, where the broker keeps it:
// a quorum queue of RabbitMQ puts what is given back behind everything else. It comes again at once; Retry is what waits.
type Handler func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict)

// Stage describes what [Run] does. Consumer and Handle are required.
type Stage struct {
	// Name is for errors.
	Name string
	// Consumer and Producer stay the caller's to close, after Run has returned. Producer may be nil if Handle never returns messages.
	Consumer stagebus.Consumer
	Producer stagebus.Producer
	Handle   Handler
	// Workers is how many handlers run at the same time: 1. Deliveries of one topic with the same key are handled one at a time, in
	// the order in which they came; those without a key by whoever is free.
	Workers int
	// Batch is the most deliveries received at once: 256. At most 16 times as many are open, fewer if the consumer's Prefetch is smaller.
	Batch int
	// Drain is how long running handlers, and the sending of what they return, may go on after the end of Run's context: 10 s.
	Drain time.Duration
	// Hook, if set, hears of sends and settlements that failed and are tried again (EventError; N messages), of inputs
	// rejected because an output can never be sent (EventError), and of settlements that came too late (EventStale). It is called from several goroutines
	// and must not block.
	Hook stagebus.Hook
}

func (s Stage) withDefaults() (Stage, error) {
	for _, f := range []struct {
		name string
		n    int
	}{{"Workers", s.Workers}, {"Batch", s.Batch}, {"Drain", int(s.Drain)}} {
		if f.n < 0 {
			return s, &stagebus.InvalidError{Field: "Stage." + f.name, Value: fmt.Sprint(f.n), Reason: "negative"}
		}
	}
	switch {
	case s.Consumer == nil:
		return s, &stagebus.InvalidError{Field: "Stage.Consumer", Reason: "a stage needs one: Broker.Consumer opens it"}
	case s.Handle == nil:
		return s, &stagebus.InvalidError{Field: "Stage.Handle", Reason: "a stage needs a handler"}
	}
	if s.Workers == 0 {
		s.Workers = 1
	}
	if s.Batch == 0 {
		s.Batch = 256
	}
	if s.Drain == 0 {
		s.Drain = 10 * time.Second
	}
	return s, nil
}

// wrap says which stage an error is of.
func (s Stage) wrap(err error) error {
	if err == nil || s.Name == "" {
		return err
	}
	return fmt.Errorf("stage %q: %w", s.Name, err)
}
