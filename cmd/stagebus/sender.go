package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// A batch is as large as this, or what is there without waiting: a line that comes alone leaves alone.
const (
	batchMessages = 256
	batchBytes    = 1 << 20
)

// batch is consecutive messages of the input. With err, the input ends after them.
type batch struct {
	ms   []stagebus.Message
	from []origin
	seq  int // number of the first message in the input
	err  error
}

// batcher cuts an input into batches.
type batcher struct {
	in     input
	fill   func(*stagebus.Message) error
	copies int
	stamp  bool // each copy is a message of its own

	seq  int
	cur  item
	left int // copies of cur to be sent
}

// next waits for the next batch. One with err is the last; io.EOF is the ordinary end.
func (b *batcher) next() batch {
	out := batch{seq: b.seq}
	for bytes := 0; len(out.ms) < batchMessages && bytes < batchBytes; {
		if b.left == 0 {
			if len(out.ms) > 0 && !b.in.ready() {
				break
			}
			if out.err = b.read(); out.err != nil {
				break
			}
		}
		b.left--
		out.ms = append(out.ms, b.cur.Message)
		if b.stamp {
			stagebus.Stamp(out.ms[len(out.ms)-1:])
		}
		out.from = append(out.from, b.cur.from)
		bytes += b.cur.Size()
	}
	b.seq += len(out.ms)
	return out
}

func (b *batcher) read() error {
	it, err := b.in.next()
	if err != nil {
		return err
	}
	if err := b.fill(&it.Message); err != nil {
		return it.from.bad(err)
	}
	b.cur, b.left = it, b.copies
	return nil
}

// sender submits batches one after the other without waiting for their outcomes, which the producer's window bounds, and stops at
// the first message that fails.
//
// With patience, a message that a lost connection or an absent broker stopped doesn't fail: it is sent again, for that long. Nothing new
// is sent meanwhile, so that memory stays bounded; what was on its way together may change its order.
type sender struct {
	p        stagebus.Producer
	patience time.Duration
	note     func(format string, args ...any) // says what goes on during an outage
	open     sync.WaitGroup                   // batches without outcome
	broken   chan struct{}                    // closed by the first failure
	trouble  chan struct{}                    // capacity 1: something is to be sent again

	mu       sync.Mutex // protects the following
	again    []unsent
	counts   counts
	first    error // of the failed message that came first in the input
	firstSeq int
}

func newSender(p stagebus.Producer) *sender {
	return &sender{p: p, broken: make(chan struct{}), trouble: make(chan struct{}, 1)}
}

// run sends the input and returns when every message has its outcome. stopped: ctx ended before the input did.
func (s *sender) run(ctx context.Context, in *batcher) (stopped bool) {
	defer s.heal(ctx)
	batches, quit := make(chan batch), make(chan struct{})
	defer close(quit)
	// The reader ends with the input. If we stop before, it may be left in a read, which nothing can wake; the process ends soon.
	go func() {
		for {
			b := in.next()
			select {
			case batches <- b:
			case <-quit:
				return
			}
			if b.err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-s.broken:
			return false
		case <-ctx.Done():
			return true
		case <-s.trouble:
			s.heal(ctx)
		case b := <-batches:
			if len(b.ms) > 0 && !s.submit(ctx, b) {
				return false
			}
			if b.err != nil {
				if !errors.Is(b.err, io.EOF) {
					s.fail(b.seq+len(b.ms), b.err)
				}
				return false
			}
		}
	}
}

// submit sends b. If one of its messages is refused, those before it are sent all the same: where the input breaks off must not depend
// on how it was cut.
func (s *sender) submit(ctx context.Context, b batch) bool {
	s.open.Add(1)
	// A signal ends the input, not what is on its way: ProducerOptions.Timeout bounds that.
	err := s.p.Submit(context.WithoutCancel(ctx), b.ms, func(os []stagebus.Outcome) {
		defer s.open.Done()
		s.settle(b, os)
	})
	if err == nil {
		return true
	}
	s.open.Done()
	if s.healable(err) {
		for i := range b.ms {
			s.resend(b, i, err)
		}
		return true
	}
	at := 0
	var be *stagebus.BatchError
	if errors.As(err, &be) && len(be.Errs) == len(b.ms) {
		for i, e := range be.Failed() {
			if !errors.Is(e, stagebus.ErrNotSent) {
				at, err = i, e
				break
			}
		}
	}
	if at > 0 {
		s.submit(ctx, batch{ms: b.ms[:at], from: b.from[:at], seq: b.seq})
	}
	s.fail(b.seq+at, b.from[at].wrap(err))
	return false
}

func (s *sender) settle(b batch, os []stagebus.Outcome) {
	for i := range os {
		switch err := os[i].Err; {
		case s.healable(err):
			s.resend(b, i, err)
			continue
		case err != nil:
			s.fail(b.seq+i, b.from[i].wrap(err))
			continue
		}
		s.mu.Lock()
		s.counts.Published++
		s.mu.Unlock()
	}
}

func (s *sender) fail(seq int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, stagebus.ErrUncertain) {
		s.counts.Uncertain++
	} else {
		s.counts.Failed++
	}
	if s.first == nil {
		close(s.broken)
	}
	if s.first == nil || seq < s.firstSeq {
		s.first, s.firstSeq = err, seq
	}
}

// soFar returns how many messages have been published. It may be called at any time.
func (s *sender) soFar() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.counts.Published)
}

// result returns how many were published, and the first failure with the counts. Call it after run.
func (s *sender) result() (published int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		return s.counts.Published, nil
	}
	return s.counts.Published, &countedError{s.first, s.counts}
}

// counts is what became of messages.
type counts struct {
	Published int `json:"published"`
	Failed    int `json:"failed"`
	Uncertain int `json:"uncertain"`
}

// countedError is the first failure, and how many messages had which outcome.
type countedError struct {
	first  error
	counts counts
}

func (e *countedError) Error() string {
	s := fmt.Sprintf("%v; published %d, failed %d", e.first, e.counts.Published, e.counts.Failed)
	if e.counts.Uncertain > 0 {
		s += fmt.Sprintf(", uncertain %d", e.counts.Uncertain)
	}
	return s
}

func (e *countedError) Unwrap() error { return e.first }
