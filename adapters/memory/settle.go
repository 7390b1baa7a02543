package memory

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/deadletter"
)

// Settle implements [stagebus.Consumer]. Only Reject may wait: for room in the dead-letter topic.
func (c *consumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	s := c.d.store
	s.lock()
	defer s.unlock()
	f := failures{c: c, n: len(ts)}
	var last *lane
	for i := range ts {
		l, _ := ts[i].Lane.(*lane)
		if l != last && last != nil {
			last.settled() // once for all tokens of a lane in a row
			last = nil
		}
		if l == nil || l.consumer != c {
			f.stale(i, l)
			continue
		}
		if ok, err := c.settle(ctx, v, l, ts[i].Seq); err != nil {
			f.add(i, err)
		} else if !ok {
			f.stale(i, l)
		}
		last = l
	}
	if last != nil {
		last.settled()
	}
	return f.err()
}

// settle ends one delivery. False: the token is stale.
func (c *consumer) settle(ctx context.Context, v stagebus.Verdict, l *lane, seq int64) (ok bool, err error) {
	switch v.Kind {
	case stagebus.KindDone:
		return l.ledger.Settle(seq), nil
	case stagebus.KindRelease:
		return l.release(seq), nil
	case stagebus.KindRetry, stagebus.KindReject:
		offset, ok := l.ledger.Claim(seq)
		if !ok {
			return false, nil
		}
		if v.Kind == stagebus.KindRetry {
			l.cursor.retry(offset, v.After)
		} else if err := c.reject(ctx, l, offset, v.Reason); err != nil {
			l.ledger.Unclaim(seq)
			return false, err
		}
		return l.ledger.Settle(seq), nil
	default:
		return false, &stagebus.InvalidError{Field: "Verdict.Kind", Value: itoa(int(v.Kind)), Reason: "unknown: use Done, Release, Retry or Reject"}
	}
}

// reject appends a dead letter for the message at offset of l, which the caller has claimed. It makes none if l ends while it waits for
// room: the message comes again then.
func (c *consumer) reject(ctx context.Context, l *lane, offset int64, reason string) error {
	g := l.cursor.g
	name := stagebus.DeadLetterTopic(g.t.name, g.name)
	if err := stagebus.CheckTopic(name); err != nil {
		return err // the name would be too long
	}
	r, origin := l.cursor.partition.at(offset), l.cursor.origin(offset)
	m := r.Message
	m.Topic = name
	m.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h stagebus.Header) bool { return deadletter.Is(h.Key) })
	m.Headers = append(m.Headers, deadletter.Letter{Reason: reason, Origin: origin, Group: g.name, Attempt: r.attempt(), Rejected: time.Now()}.Headers()...)
	t, err := c.d.room(ctx, "reject", name, true, load{1, int64(m.Size())})
	if err == nil && !l.sealed {
		t.append(t.choose(&m), m)
	}
	return err
}

// failures collects the errors of one Settle.
type failures struct {
	c      *consumer
	n      int
	batch  *stagebus.BatchError
	stales int64
}

func (f *failures) add(i int, err error) {
	if f.batch == nil {
		f.batch = &stagebus.BatchError{Errs: make([]error, f.n)}
	}
	f.batch.Errs[i] = err
}

// stale notes token i, of lane l (nil for a foreign one), and tells the hook of the first.
func (f *failures) stale(i int, l *lane) {
	topic := strings.Join(f.c.o.Topics, ",")
	if l != nil {
		topic = l.Info().Topic
	}
	f.add(i, f.c.d.fail("settle", topic, stagebus.ErrStale, nil, "drop the result: unless it was settled, the message comes again"))
	f.stales++
}

func (f *failures) err() error {
	if f.batch == nil {
		return nil
	}
	if f.stales > 0 {
		f.c.d.store.emit(f.c.d, stagebus.Event{Kind: stagebus.EventStale, Group: f.c.o.Group, N: f.stales})
	}
	return f.batch
}
