package memorytest

import (
	"context"
	"sync"

	"github.com/stagebus/stagebus"
)

// Faults makes sending fail on demand: put its Middleware into the broker's stack, innermost. The zero value does nothing, and must not be copied. All
// methods are safe for concurrent use.
type Faults struct {
	mu   sync.Mutex // protects the following
	next []fault
}

type fault struct {
	err  error
	sent bool
}

// Fail has the next n calls of Submit send nothing; all their outcomes carry err.
func (f *Faults) Fail(n int, err error) { f.add(n, fault{err: err}) }

// Lose has the next n calls of Submit send their messages, but report [stagebus.ErrUncertain], as when a connection is lost before
// the broker's answer: a sender that tries again makes a duplicate.
func (f *Faults) Lose(n int) { f.add(n, fault{err: stagebus.ErrUncertain, sent: true}) }

func (f *Faults) add(n int, x fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.next = append(f.next, x)
	}
}

func (f *Faults) take() (x fault, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.next) == 0 {
		return x, false
	}
	x, f.next = f.next[0], f.next[1:]
	return x, true
}

// Middleware returns the layer that fails. It is of the innermost kind, so that other layers meet its failures as they would a broker's.
func (f *Faults) Middleware() stagebus.Middleware {
	return stagebus.Middleware{Name: "faults", Layer: stagebus.Sign, Producer: func(p stagebus.Producer) stagebus.Producer {
		return &faultyProducer{f, p}
	}}
}

type faultyProducer struct {
	f     *Faults
	inner stagebus.Producer
}

// Submit implements [stagebus.Producer].
func (p *faultyProducer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	x, ok := p.f.take()
	if !ok {
		return p.inner.Submit(ctx, ms, done)
	}
	fail := func(os []stagebus.Outcome) {
		for i := range os {
			os[i] = stagebus.Outcome{Err: x.err}
		}
		done(os)
	}
	if x.sent {
		return p.inner.Submit(ctx, ms, fail)
	}
	fail(make([]stagebus.Outcome, len(ms)))
	return nil
}

// Close implements [stagebus.Producer].
func (p *faultyProducer) Close(ctx context.Context) error { return p.inner.Close(ctx) }
