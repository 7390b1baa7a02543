package adaptertest_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// verdictIs changes verdicts of one kind.
func verdictIs(k stagebus.Kind, to func(stagebus.Verdict) stagebus.Verdict) wrapper {
	return settles(func(v stagebus.Verdict) stagebus.Verdict {
		if v.Kind == k {
			return to(v)
		}
		return v
	})
}

func always(v stagebus.Verdict) func(stagebus.Verdict) stagebus.Verdict {
	return func(stagebus.Verdict) stagebus.Verdict { return v }
}

// sparing keeps Done to itself and lets only its holder pass it on.
type sparing struct {
	c    *faultyConsumer
	mu   sync.Mutex
	kept []stagebus.Token
}

func (s *sparing) settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	if v.Kind != stagebus.KindDone {
		return s.c.Consumer.Settle(ctx, v, ts...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, ts...)
	return nil
}

func (s *sparing) pass(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := s.kept
	s.kept = nil
	return s.c.Consumer.Settle(ctx, stagebus.Done, ts...)
}

var settleMutants = []mutant{
	{"retry without delay", "retry/delay", verdictIs(stagebus.KindRetry, always(stagebus.Retry(0)))},
	{"retry released instead", "retry/attempts", verdictIs(stagebus.KindRetry, always(stagebus.Release))},
	{"retry that loses", "retry/durable", verdictIs(stagebus.KindRetry, always(stagebus.Done))},
	{"retry holds up the others", "retry/others-go-on", consumes(func(c *faultyConsumer) {
		var mu sync.Mutex
		var due time.Time
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			mu.Lock()
			defer mu.Unlock()
			if v.Kind == stagebus.KindRetry {
				due = time.Now().Add(v.After)
			}
			return c.Consumer.Settle(ctx, v, ts...)
		}
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			mu.Lock()
			wait := time.Until(due)
			mu.Unlock()
			if wait <= 0 {
				return c.Consumer.Receive(ctx, dst)
			}
			<-time.After(wait + 200*time.Millisecond) // the retried message is first then
			for {
				n, err := c.Consumer.Receive(ctx, dst)
				if err != nil || n == 0 || dst[0].Attempt > 1 {
					return n, err
				}
				for _, d := range dst[:n] {
					err = errors.Join(err, c.Consumer.Settle(ctx, stagebus.Retry(0), d.Token))
				}
				if err != nil {
					return 0, err
				}
			}
		}
	})},
	{"release that loses", "settle/release", verdictIs(stagebus.KindRelease, always(stagebus.Done))},
	{"release counted as an attempt", "settle/release", verdictIs(stagebus.KindRelease, always(stagebus.Retry(0)))},
	{"reject that loses", "reject/dead-letter", verdictIs(stagebus.KindReject, always(stagebus.Done))},
	{"reject released instead", "reject/dead-letter", verdictIs(stagebus.KindReject, always(stagebus.Release))},
	{"reject without its reason", "reject/origin", verdictIs(stagebus.KindReject, always(stagebus.Reject("")))},
	{"reason cut at 64 bytes", "reject/reason", verdictIs(stagebus.KindReject, func(v stagebus.Verdict) stagebus.Verdict {
		return stagebus.Reject(v.Reason[:min(64, len(v.Reason))])
	})},
	{"dead letter doubled", "reject/dead-letter", func(d stagebus.Driver) stagebus.Driver {
		return consumes(func(c *faultyConsumer) {
			var mu sync.Mutex
			held := map[stagebus.Token]stagebus.Message{}
			c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
				n, err := c.Consumer.Receive(ctx, dst)
				mu.Lock()
				defer mu.Unlock()
				for _, d := range dst[:n] {
					held[d.Token] = d.Message
				}
				return n, err
			}
			c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
				if v.Kind == stagebus.KindReject {
					p, err := d.Producer(ctx, stagebus.ProducerOptions{Create: true})
					if err != nil {
						return err
					}
					mu.Lock()
					m := held[ts[0]]
					mu.Unlock()
					m.Topic = stagebus.DeadLetterTopic(m.Topic, "")
					if err := errors.Join(stagebus.Send(ctx, p, m), p.Close(ctx)); err != nil {
						return err
					}
				}
				return c.Consumer.Settle(ctx, v, ts...)
			}
		})(d)
	}},
	{"dead letter made from what a layer read", "stack/wire-bytes", func(d stagebus.Driver) stagebus.Driver {
		return delivers(func(d *stagebus.Delivery) { // as if it were: the bytes of a dead letter are not those of the wire
			if _, dead := d.Headers.Get(stagebus.HeaderDeadReason); dead {
				d.Body = bytes.Clone(d.Body)
				for i := range d.Body {
					d.Body[i] ^= 0xa5
				}
			}
		})(d)
	}},
	{"stale token accepted", "settle/twice", consumes(func(c *faultyConsumer) {
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			if err := c.Consumer.Settle(ctx, v, ts...); !errors.Is(err, stagebus.ErrStale) {
				return err
			}
			return nil
		}
	})},
	{"token of a closed consumer accepted", "settle/closed", consumes(func(c *faultyConsumer) {
		closed := false
		c.close = func(ctx context.Context) error { closed = true; return c.Consumer.Close(ctx) }
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			if closed {
				return nil
			}
			return c.Consumer.Settle(ctx, v, ts...)
		}
	})},
	{"foreign token settled for its owner", "settle/foreign", func() wrapper {
		var mu sync.Mutex
		var all []stagebus.Consumer
		return consumes(func(c *faultyConsumer) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, c.Consumer)
			c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) (err error) {
				mu.Lock()
				defer mu.Unlock()
				for _, other := range all {
					if err = other.Settle(ctx, v, ts...); err == nil {
						return nil
					}
				}
				return err
			}
		})
	}()},
	{"one stale token spoils the call", "settle/twice", consumes(func(c *faultyConsumer) {
		var mu sync.Mutex
		seen := map[stagebus.Token]bool{}
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			mu.Lock()
			defer mu.Unlock()
			be := &stagebus.BatchError{Errs: make([]error, len(ts))}
			spoilt := false
			for i, t := range ts {
				if seen[t] {
					spoilt = true
				}
				be.Errs[i] = stagebus.ErrStale
			}
			if spoilt {
				return be
			}
			for _, t := range ts {
				seen[t] = true
			}
			return c.Consumer.Settle(ctx, v, ts...)
		}
	})},
	{"settling races", "settle/race", consumes(func(c *faultyConsumer) {
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			_ = c.Consumer.Settle(ctx, v, ts...) // whoever comes second doesn't learn it: the fault
			return nil
		}
	})},
	{"Done counts for all before it", "settle/partly", consumes(func(c *faultyConsumer) {
		var mu sync.Mutex
		var open []stagebus.Token
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			mu.Lock()
			defer mu.Unlock()
			for _, d := range dst[:n] {
				open = append(open, d.Token)
			}
			return n, err
		}
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			mu.Lock()
			defer mu.Unlock()
			for _, t := range ts {
				for len(open) > 0 && open[0] != t && v.Kind == stagebus.KindDone {
					_ = c.Consumer.Settle(ctx, v, open[0]) // the fault
					open = open[1:]
				}
			}
			return c.Consumer.Settle(ctx, v, ts...)
		}
	})},
	{"settlements lost by Close", "close/commits", consumes(func(c *faultyConsumer) {
		s := &sparing{c: c}
		c.settle, c.flush = s.settle, s.pass
	})},
	{"Flush that doesn't", "settle/flush", consumes(func(c *faultyConsumer) {
		s := &sparing{c: c}
		c.settle = s.settle
		c.close = func(ctx context.Context) error { return errors.Join(s.pass(ctx), c.Consumer.Close(ctx)) }
	})},
	{"retry copied to the topic for every group", "retry/own-group", func(d stagebus.Driver) stagebus.Driver {
		return resending(d, stagebus.KindRetry)
	}},
	{"one release too many", "count/verdicts", consumes(func(c *faultyConsumer) {
		var n counter
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			if v.Kind == stagebus.KindDone && n.every(100) {
				v = stagebus.Release
			}
			return c.Consumer.Settle(ctx, v, ts...)
		}
	})},
}

// resending carries out one kind of verdict by sending the message to its topic again.
func resending(d stagebus.Driver, k stagebus.Kind) stagebus.Driver {
	return consumes(func(c *faultyConsumer) {
		var mu sync.Mutex
		held := map[stagebus.Token]stagebus.Message{}
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			mu.Lock()
			defer mu.Unlock()
			for _, d := range dst[:n] {
				held[d.Token] = d.Message
			}
			return n, err
		}
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			if v.Kind != k {
				return c.Consumer.Settle(ctx, v, ts...)
			}
			p, err := d.Producer(ctx, stagebus.ProducerOptions{})
			if err != nil {
				return err
			}
			mu.Lock()
			m := held[ts[0]]
			mu.Unlock()
			return errors.Join(stagebus.Send(ctx, p, m), p.Close(ctx), c.Consumer.Settle(ctx, stagebus.Done, ts...))
		}
	})(d)
}

// leaky is a transaction whose producer isn't part of it.
type leaky struct {
	stagebus.Tx
	p stagebus.Producer
}

func (l *leaky) Producer() stagebus.Producer { return l.p }
func (l *leaky) Close(ctx context.Context) error {
	return errors.Join(l.Tx.Close(ctx), l.p.Close(ctx))
}

// leak replaces the producers of transactions.
type leak struct{ stagebus.Driver }

func (l leak) Tx(ctx context.Context, po stagebus.ProducerOptions, co stagebus.ConsumerOptions) (stagebus.Tx, error) {
	tx, err := l.Driver.Tx(ctx, po, co)
	if err != nil {
		return nil, err
	}
	p, err := l.Producer(ctx, po)
	return &leaky{tx, p}, err
}

func transacts(make func(*faultyTx)) wrapper {
	return func(d stagebus.Driver) stagebus.Driver {
		return &faulty{Driver: d, tx: func(tx stagebus.Tx) stagebus.Tx {
			f := &faultyTx{Tx: tx}
			make(f)
			return f
		}}
	}
}

var otherMutants = []mutant{
	{"transaction visible before Commit", "tx/commit", func(d stagebus.Driver) stagebus.Driver { return leak{d} }},
	{"abort that commits", "tx/abort", transacts(func(tx *faultyTx) { tx.abort = tx.Tx.Commit })},
	{"commit that aborts", "tx/commit", transacts(func(tx *faultyTx) { tx.commit = tx.Tx.Abort })},
	{"claims no offsets and has them", "send/outcomes", claims(func(c *stagebus.Capabilities) { c.Offsets = false })},
	{"claims no history and has it", "start/history", claims(func(c *stagebus.Capabilities) { c.History = false })},
	{"claims no replay and takes a start", "start/kinds", claims(func(c *stagebus.Capabilities) { c.Replay = false })},
	{"claims no transactions and has them", "tx/commit", claims(func(c *stagebus.Capabilities) { c.Transactions = false })},
	{"claims no key order and takes the option", "group/key-order", claims(func(c *stagebus.Capabilities) { c.KeyOrder = false })},
	{"claims no partitions and has Assigned", "start/assigned", claims(func(c *stagebus.Capabilities) { c.Partitions = false })},
	{"claims no partitions and takes a pin", "send/partition", claims(func(c *stagebus.Capabilities) { c.Partitions = false })},
	{"claims transactions and has none", "tx/commit", func(d stagebus.Driver) stagebus.Driver { return noTx{d} }},
	{"purge that purges nothing", "admin/purge", administers(func(a *faultyAdmin) {
		a.purge = func(context.Context, string, string) error { return nil }
	})},
	{"delete that empties only", "admin/delete", administers(func(a *faultyAdmin) {
		a.delete = func(ctx context.Context, topic string) error { return a.Admin.Purge(ctx, topic, "") }
	})},
	{"conflict swallowed", "admin/declare", administers(func(a *faultyAdmin) {
		a.declare = func(ctx context.Context, s stagebus.TopicSpec) error {
			if err := a.Admin.Declare(ctx, s); !errors.Is(err, stagebus.ErrConflict) {
				return err
			}
			return nil
		}
	})},
	{"declaring again empties", "admin/declare", administers(func(a *faultyAdmin) {
		a.declare = func(ctx context.Context, s stagebus.TopicSpec) error {
			if err := a.Admin.Delete(ctx, s.Name); err != nil && !errors.Is(err, stagebus.ErrNotFound) {
				return err
			}
			return a.Admin.Declare(ctx, s)
		}
	})},
	{"capacity ignored", "send/backpressure", administers(func(a *faultyAdmin) {
		a.declare = func(ctx context.Context, s stagebus.TopicSpec) error {
			s.Capacity = 0
			return a.Admin.Declare(ctx, s)
		}
	})},
}

type noTx struct{ stagebus.Driver }

func (noTx) Tx(context.Context, stagebus.ProducerOptions, stagebus.ConsumerOptions) (stagebus.Tx, error) {
	return nil, stagebus.ErrUnsupported
}
