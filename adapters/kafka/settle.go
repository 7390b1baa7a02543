package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stagebus/stagebus"
)

// Settle implements [stagebus.Consumer].
func (c *consumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	s := settlement{c: c, tokens: ts}
	switch {
	case v.Kind == stagebus.KindDone:
		s.claim(s.done)
	case v.Kind == stagebus.KindRelease:
		s.release(time.Time{}, 0)
	case v.Kind == stagebus.KindRetry && c.group == "":
		// Nobody would read a retry topic: the message waits here.
		s.release(time.Now().Add(max(v.After, 0)), 1)
	case v.Kind == stagebus.KindRetry:
		s.copies(ctx, func(l *lane, p *pinned) (record, place, error) { return c.retryCopy(ctx, l, p, v.After) })
	case v.Kind == stagebus.KindReject:
		s.copies(ctx, func(l *lane, p *pinned) (record, place, error) { return c.deadCopy(ctx, l, p, v.Reason) })
	default:
		return &stagebus.InvalidError{Field: "Verdict.Kind", Reason: "unknown"}
	}
	return s.finish()
}

// settlement is one call of Settle.
type settlement struct {
	c      *consumer
	tokens []stagebus.Token
	errs   []error // nil until something fails
	stale  int
	woken  bool
}

func (s *settlement) fail(i int, err error) {
	if s.errs == nil {
		s.errs = make([]error, len(s.tokens))
	}
	s.errs[i] = err
	if errors.Is(err, stagebus.ErrStale) {
		s.stale++
	}
}

// claim runs f for the tokens that are open and this consumer's.
func (s *settlement) claim(f func(i int, l *lane, p *pinned)) {
	for i, t := range s.tokens {
		l, ok := t.Lane.(*lane)
		if !ok || l == nil || l.c != s.c {
			s.fail(i, stagebus.ErrStale)
			continue
		}
		p, ok := l.ledger.Claim(t.Seq)
		if !ok {
			s.fail(i, stagebus.ErrStale)
			continue
		}
		f(i, l, p)
	}
}

// done ends a claimed delivery.
func (s *settlement) done(i int, l *lane, p *pinned) {
	if !l.ledger.Settle(s.tokens[i].Seq) {
		s.fail(i, stagebus.ErrStale)
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if l.sealed {
		return // its settlement came in time or not, its memory was counted back
	}
	l.hold(-1, p.size)
	l.unpin(p.chunk)
	s.woken = true
}

// release gives deliveries back to be delivered again at the time, with more attempts.
func (s *settlement) release(at time.Time, attempts int) {
	for i, t := range s.tokens {
		l, ok := t.Lane.(*lane)
		if !ok || l == nil || l.c != s.c {
			s.fail(i, stagebus.ErrStale)
			continue
		}
		p, seq, ok := l.ledger.Reissue(t.Seq)
		if !ok {
			s.fail(i, stagebus.ErrStale)
			continue
		}
		s.c.mu.Lock()
		p.attempt += attempts
		l.hold(-1, p.size)
		if !l.sealed {
			l.again = append(l.again, redelivery{seq: seq, p: p, due: at})
		}
		s.c.mu.Unlock()
		s.woken = true
	}
}

// copies settles with a durable copy each: written first, settled when they are safe.
func (s *settlement) copies(ctx context.Context, to func(*lane, *pinned) (record, place, error)) {
	type claimed struct {
		i int
		l *lane
		p *pinned
	}
	var cs []claimed
	var rs []record
	var at []place
	s.claim(func(i int, l *lane, p *pinned) {
		r, where, err := to(l, p)
		if err != nil {
			l.ledger.Unclaim(s.tokens[i].Seq)
			s.fail(i, err)
			return
		}
		cs, rs, at = append(cs, claimed{i, l, p}), append(rs, r), append(at, where)
	})
	if len(cs) == 0 {
		return
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*s.c.client.timeout)
		defer cancel()
	}
	errs, err := s.c.copies.forward(ctx, rs, at)
	for k, x := range cs {
		e := err
		if e == nil {
			e = errs[k]
		}
		if e != nil {
			x.l.ledger.Unclaim(s.tokens[x.i].Seq)
			s.fail(x.i, s.c.client.fail("settle", at[k].topic, e))
			continue
		}
		s.done(x.i, x.l, x.p)
	}
}

func (s *settlement) finish() error {
	c := s.c
	c.mu.Lock()
	if s.woken {
		c.wake()
		c.kickFetch()
	}
	if s.stale > 0 {
		c.note(stagebus.Event{Kind: stagebus.EventStale, Group: c.group, N: int64(s.stale)})
	}
	c.unlock()
	if s.errs == nil {
		return nil
	}
	return &stagebus.BatchError{Errs: slices.Clip(s.errs)}
}
