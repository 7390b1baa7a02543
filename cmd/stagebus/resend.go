package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stagebus/stagebus"
)

// The pauses between attempts to send again: a broker that restarts is away for seconds.
const (
	resendFirst = 100 * time.Millisecond
	resendMost  = 2 * time.Second
)

// unsent is a message that an outage stopped.
type unsent struct {
	m    stagebus.Message
	from origin
	seq  int
	err  error
}

// healable tells what waiting may mend from what it can't. A time-out is an outage too: the broker didn't answer.
func (s *sender) healable(err error) bool {
	return s.patience > 0 && !errors.Is(err, stagebus.ErrRefused) &&
		(errors.Is(err, stagebus.ErrUncertain) || errors.Is(err, stagebus.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded))
}

func (s *sender) resend(b batch, i int, err error) {
	s.mu.Lock()
	s.again = append(s.again, unsent{b.ms[i], b.from[i], b.seq + i, err})
	s.mu.Unlock()
	select {
	case s.trouble <- struct{}{}:
	default:
	}
}

// heal waits until every batch has its outcome and sends again what is to be, until nothing is left, the patience is over, or ctx ends:
// what is left then has failed.
func (s *sender) heal(ctx context.Context) {
	began, pause := time.Time{}, resendFirst
	for {
		s.open.Wait()
		us := s.takeUnsent()
		if len(us) == 0 {
			return
		}
		if began.IsZero() {
			began = time.Now()
			s.note("sending %s again, for up to %v: %v", plural(len(us), "message"), s.patience, us[0].err)
		}
		if !s.pause(ctx, min(pause, s.patience-time.Since(began))) {
			for _, u := range us {
				s.fail(u.seq, u.from.wrap(u.err))
			}
			return
		}
		pause = min(2*pause, resendMost)
		for _, b := range batches(us) {
			s.submit(ctx, b)
			s.open.Wait() // one after the other: they keep their order
		}
	}
}

// pause reports whether there is sense in another attempt after it.
func (s *sender) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.broken:
	case <-ctx.Done():
	}
	return false
}

func (s *sender) takeUnsent() []unsent {
	s.mu.Lock()
	defer s.mu.Unlock()
	us := s.again
	s.again = nil
	slices.SortFunc(us, func(a, b unsent) int { return a.seq - b.seq })
	return us
}

// batches cuts us, which is sorted, where numbers are missing and where a batch is full.
func batches(us []unsent) []batch {
	var out []batch
	for i, u := range us {
		if i == 0 || u.seq != us[i-1].seq+1 || len(out[len(out)-1].ms) >= batchMessages {
			out = append(out, batch{seq: u.seq})
		}
		b := &out[len(out)-1]
		b.ms, b.from = append(b.ms, u.m), append(b.from, u.from)
	}
	return out
}
