package adaptertest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// each makes a Submit that may send a message not at all or several times; outcomes stay aligned.
func each(times func(i int, ms []stagebus.Message) int) func(stagebus.Producer) submitFunc {
	return func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			var out []stagebus.Message
			at := make([]int, len(ms)) // of its outcome, -1: none
			for i := range ms {
				at[i] = -1
				for range times(i, ms) {
					at[i] = len(out)
					out = append(out, ms[i])
				}
			}
			report := func(os []stagebus.Outcome) {
				all := make([]stagebus.Outcome, len(ms))
				for i, j := range at {
					if j >= 0 {
						all[i] = os[j]
					}
				}
				done(all)
			}
			if len(out) == 0 {
				report(nil)
				return nil
			}
			return p.Submit(ctx, out, report)
		}
	}
}

// lazy is a producer that accepts at once and sends a little later.
type lazy struct {
	stagebus.Producer
	mu      sync.Mutex
	pending []func()
	timer   *time.Timer
	closed  bool
}

func (l *lazy) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return stagebus.ErrClosed
	}
	ms = slices.Clone(ms)
	l.pending = append(l.pending, func() {
		if err := l.Producer.Submit(ctx, ms, done); err != nil {
			done(slices.Repeat([]stagebus.Outcome{{Err: err}}, len(ms)))
		}
	})
	if l.timer == nil {
		l.timer = time.AfterFunc(20*time.Millisecond, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, f := range l.pending {
				f()
			}
			l.pending, l.timer = nil, nil
		})
	}
	return nil
}

// Close is the fault: it forgets what is pending.
func (l *lazy) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.pending = true, nil
	return l.Producer.Close(ctx)
}

var producerMutants = []mutant{
	{"message lost", "count/exact", func() wrapper {
		var n counter
		return submits(each(func(int, []stagebus.Message) int {
			if n.every(200) {
				return 0
			}
			return 1
		}))
	}()},
	{"message doubled on publish", "count/exact", func() wrapper {
		var n counter
		return submits(each(func(int, []stagebus.Message) int {
			if n.every(200) {
				return 2
			}
			return 1
		}))
	}()},
	{"neighbours swapped", "count/order", sendsAll(func(ms []stagebus.Message) {
		for i := 8; i < len(ms); i += 2 { // the keys of the case take turns by eight
			ms[i], ms[i-8] = ms[i-8], ms[i]
		}
	})},
	{"order lost between Submits", "count/order", submits(func(p stagebus.Producer) submitFunc {
		var n counter
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			if !n.every(3) {
				return p.Submit(ctx, ms, done)
			}
			ms = slices.Clone(ms)
			time.AfterFunc(5*time.Millisecond, func() {
				if err := p.Submit(ctx, ms, done); err != nil {
					done(slices.Repeat([]stagebus.Outcome{{Err: err}}, len(ms)))
				}
			})
			return nil
		}
	})},
	{"close that discards what is pending", "send/close-flushes", produces(func(p stagebus.Producer) stagebus.Producer { return &lazy{Producer: p} })},
	{"close among senders forgets outcomes", "send/close-while-sending", produces(func(p stagebus.Producer) stagebus.Producer { return &lazy{Producer: p} })},
	{"outcomes in another order", "send/outcomes", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			return p.Submit(ctx, ms, func(os []stagebus.Outcome) { slices.Reverse(os); done(os) })
		}
	})},
	{"done runs twice", "send/outcomes", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			return p.Submit(ctx, ms, func(os []stagebus.Outcome) { done(os); done(os) })
		}
	})},
	{"Submit stamps the caller's messages", "send/not-modified", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			stagebus.Stamp(ms)
			return p.Submit(ctx, ms, done)
		}
	})},
	{"context ignored", "send/ended-context", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			return p.Submit(context.WithoutCancel(ctx), ms, done)
		}
	})},
	{"unroutable reported as sent", "send/no-route", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			return p.Submit(ctx, ms, func(os []stagebus.Outcome) { done(make([]stagebus.Outcome, len(os))) })
		}
	})},
	{"missing topic created unasked", "send/no-route", func(d stagebus.Driver) stagebus.Driver {
		return submits(func(p stagebus.Producer) submitFunc {
			return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
				for i := range ms {
					if err := d.Admin().Declare(ctx, stagebus.TopicSpec{Name: ms[i].Topic}); err != nil && !errors.Is(err, stagebus.ErrConflict) {
						return err
					}
				}
				return p.Submit(ctx, ms, done)
			}
		})(d)
	}},
	{"one failure fails its neighbours", "send/no-route", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			return p.Submit(ctx, ms, func(os []stagebus.Outcome) {
				if i := slices.IndexFunc(os, func(o stagebus.Outcome) bool { return o.Err != nil }); i >= 0 {
					os = slices.Repeat(os[i:i+1], len(os))
				}
				done(os)
			})
		}
	})},
	{"limit lower than claimed", "refuse/broker-limit", submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			if ms[0].Size() > 1<<20 {
				return stagebus.ErrTooLarge
			}
			return p.Submit(ctx, ms, done)
		}
	})},
	{"a batch is cut at the window", "send/window", submits(each(func(i int, ms []stagebus.Message) int {
		if i >= 32 {
			return 0
		}
		return 1
	}))},
}

// sendsAll changes the messages of a Submit together.
func sendsAll(change func([]stagebus.Message)) wrapper {
	return submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			ms = slices.Clone(ms)
			change(ms)
			return p.Submit(ctx, ms, done)
		}
	})
}
