package stagebus

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// BatcherOptions bound the batches of a [Batcher]. The zero value means 1,024 messages, 1 MiB, 4 batches in flight.
type BatcherOptions struct {
	MaxMessages int // of one batch
	MaxBytes    int // of one batch, by Message.Size; a larger message goes alone
	InFlight    int // batches that wait for their outcomes at the same time
}

// Batcher makes batches of single messages: for handlers that send one each and run concurrently. There is no linger: a message that
// finds the batcher idle leaves at once, and those that come while the batches in flight are on their way form the next one. So a lone
// sender pays nothing, and batches grow with the load.
//
// All methods are safe for concurrent use. Sends that follow one another keep the order of their keys. What waits is bounded by the
// number of concurrent calls. A Batcher runs one goroutine while something waits, none when idle.
type Batcher struct {
	p Producer
	o BatcherOptions

	mu       sync.Mutex // protects the following
	pending  []*pendingSend
	running  bool          // the goroutine that submits is there
	inFlight int           // batches
	closed   bool          // no new Send
	idle     chan struct{} // closed when nothing is pending or in flight, nil if nobody waits
}

type pendingSend struct {
	m      Message
	result chan error // capacity 1
	taken  bool       // part of a batch
}

// NewBatcher returns a Batcher over p, which stays the caller's to close, after the batcher.
func NewBatcher(p Producer, o BatcherOptions) *Batcher {
	def(&o.MaxMessages, 1024)
	def(&o.MaxBytes, 1<<20)
	def(&o.InFlight, 4)
	return &Batcher{p: p, o: o}
}

// Send returns when m is durable, or with the reason why it isn't. When ctx ends first, a message that has not left is withdrawn and the
// context's cause returned; one that has left is [ErrUncertain]. One message that is refused does no harm to those beside it.
func (b *Batcher) Send(ctx context.Context, m Message) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s := &pendingSend{m: m, result: make(chan error, 1)}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.pending = append(b.pending, s)
	b.kick()
	b.mu.Unlock()

	select {
	case err := <-s.result:
		return err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case err := <-s.result: // the outcome came meanwhile
		return err
	default:
	}
	if s.taken {
		return &Error{Op: "send", Topic: m.Topic, Kind: ErrUncertain, Cause: context.Cause(ctx)}
	}
	b.pending = slices.DeleteFunc(b.pending, func(x *pendingSend) bool { return x == s })
	b.settleIdle()
	return context.Cause(ctx)
}

// Close refuses new messages and waits for the outcomes of all others, or for ctx. It doesn't close the producer.
func (b *Batcher) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.settleIdle()
	b.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kick starts the submitting goroutine if there is work and none runs. b.mu is held.
func (b *Batcher) kick() {
	if !b.running && len(b.pending) > 0 && b.inFlight < b.o.InFlight {
		b.running = true
		go b.submitAll()
	}
}

// settleIdle tells Close when there is nothing left. b.mu is held.
func (b *Batcher) settleIdle() {
	if b.idle != nil && len(b.pending) == 0 && b.inFlight == 0 {
		close(b.idle)
		b.idle = nil
	}
}

func (b *Batcher) submitAll() {
	var ms []Message
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > 0 && b.inFlight < b.o.InFlight {
		batch := b.take()
		b.inFlight++
		b.mu.Unlock()

		ms = ms[:0]
		for _, s := range batch {
			ms = append(ms, s.m)
		}
		// The senders' contexts differ, so none is the batch's: the producer's delivery time-out bounds it.
		err := b.p.Submit(context.Background(), ms, func(os []Outcome) { b.resolve(batch, os) })
		clear(ms)
		if err != nil {
			b.refused(batch, err)
		}
		b.mu.Lock()
	}
	b.running = false
}

// take removes the next batch from what is pending. b.mu is held.
func (b *Batcher) take() []*pendingSend {
	n, bytes := 0, 0
	for _, s := range b.pending {
		size := s.m.Size()
		if n == b.o.MaxMessages || n > 0 && bytes+size > b.o.MaxBytes {
			break
		}
		n, bytes = n+1, bytes+size
		s.taken = true
	}
	batch := slices.Clone(b.pending[:n])
	b.pending = slices.Delete(b.pending, 0, n)
	return batch
}

func (b *Batcher) resolve(batch []*pendingSend, os []Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, s := range batch {
		s.result <- os[i].Err
	}
	b.landed()
}

// refused ends the messages that were refused and puts those that only shared their batch back in front.
func (b *Batcher) refused(batch []*pendingSend, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var be *BatchError
	aligned := errors.As(err, &be) && len(be.Errs) == len(batch)
	var again []*pendingSend
	for i, s := range batch {
		switch {
		case !aligned:
			s.result <- err
		case errors.Is(be.Errs[i], ErrNotSent):
			s.taken = false
			again = append(again, s)
		default:
			s.result <- be.Errs[i]
		}
	}
	if len(again) == len(batch) { // nobody was to blame: don't try for ever
		for _, s := range again {
			s.taken = true
			s.result <- err
		}
		again = nil
	}
	b.pending = append(again, b.pending...)
	b.landed()
}

// landed ends a batch. b.mu is held.
func (b *Batcher) landed() {
	b.inFlight--
	b.kick()
	b.settleIdle()
}
