package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stagebus/stagebus"
)

// conclude has an item settled with its verdict. r.mu is held.
func (r *run) conclude(it *item) {
	switch it.verdict.Kind {
	case stagebus.KindDone:
		r.done = append(r.done, it.d.Token)
		r.free(it)
	case stagebus.KindRelease:
		r.giveBack(it)
	default:
		it.outs = nil
		r.moves.push(it)
	}
}

// giveBack has an item settled with Release. r.mu is held.
func (r *run) giveBack(it *item) {
	r.back = append(r.back, it.d.Token)
	r.free(it)
}

// settle is the goroutine that settles with Done and Release, which never wait.
func (r *run) settle() {
	var done, back []stagebus.Token
	r.mu.Lock()
	for {
		for len(r.done)+len(r.back) == 0 {
			if r.over {
				r.mu.Unlock()
				return
			}
			r.settlerWaits = true
			r.toSettle.Wait()
		}
		done, r.done = r.done, done[:0]
		back, r.back = r.back, back[:0]
		r.mu.Unlock()
		r.tell(stagebus.Done, done)
		r.tell(stagebus.Release, back)
		clear(done)
		clear(back)
		r.mu.Lock()
		r.closed(len(done) + len(back))
	}
}

// closed counts deliveries that are settled. r.mu is held.
func (r *run) closed(n int) {
	if r.open >= r.limit {
		r.room.Signal()
	}
	if r.open -= n; r.open == 0 {
		r.idle.Signal()
	}
}

// tell settles, and looks for failures.
func (r *run) tell(v stagebus.Verdict, ts []stagebus.Token) {
	if len(ts) == 0 {
		return
	}
	err := r.s.Consumer.Settle(r.base, v, ts...)
	if err == nil {
		return
	}
	other := r.countStale(err, len(ts))
	if other != nil { // the consumer can't settle: nothing is lost, but going on makes no sense
		r.mu.Lock()
		r.stop(fmt.Errorf("settle: %w", other))
		r.unlock()
	}
}

// countStale tells the hook of settlements that came too late, and returns an error that is of another kind.
func (r *run) countStale(err error, n int) (other error) {
	stale := int64(0)
	for _, e := range each(err, n) {
		switch {
		case e == nil:
		case late(e):
			stale++
		default:
			other = e
		}
	}
	if stale > 0 {
		r.emit(stagebus.Event{Kind: stagebus.EventStale, N: stale, Err: stagebus.ErrStale})
	}
	return other
}

// late says that a token's lane, or its consumer, has ended.
func late(err error) bool {
	return errors.Is(err, stagebus.ErrStale) || errors.Is(err, stagebus.ErrClosed)
}

// each aligns an error of a call with its n tokens or messages.
func each(err error, n int) []error {
	var be *stagebus.BatchError
	if errors.As(err, &be) && len(be.Errs) == n {
		return be.Errs
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// move is a goroutine that settles with Retry and Reject, those of equal verdicts together. Several run when there are several.
func (r *run) move() {
	r.mu.Lock()
	for r.moves.n > 0 {
		var ts []stagebus.Token
		var rest list
		v := r.moves.head.verdict
		began := time.Now()
		for moves := r.moves.take(); moves.n > 0; {
			it := moves.pop()
			if it.verdict != v {
				rest.push(it)
				continue
			}
			ts = append(ts, it.d.Token)
			r.free(it)
		}
		r.moves = rest
		r.unlock()
		for pause, n := firstPause, len(ts); n > 0; pause = min(2*pause, lastPause) {
			ts = r.moveOnce(v, ts, began, pause)
			r.mu.Lock()
			r.closed(n - len(ts))
			r.unlock()
			n = len(ts)
		}
		r.mu.Lock()
	}
	r.movers--
	r.unlock()
}

// moveOnce returns those that must be tried again, after a pause.
func (r *run) moveOnce(v stagebus.Verdict, ts []stagebus.Token, began time.Time, pause time.Duration) (again []stagebus.Token) {
	if r.hard.Err() != nil {
		r.mu.Lock()
		r.cutOff += len(ts)
		r.mu.Unlock()
		r.tell(stagebus.Release, ts)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.hard, 30*time.Second)
	err := r.s.Consumer.Settle(ctx, v, ts...)
	cancel()
	if err == nil {
		return nil
	}
	if r.countStale(err, len(ts)) == nil {
		return nil
	}
	var failed error
	c := fine
	for i, e := range each(err, len(ts)) {
		if e == nil || late(e) {
			continue
		}
		again = append(again, ts[i])
		if x := classify(e); x > c {
			c, failed = x, e
		}
	}
	failed = fmt.Errorf("%s: %w", kindName(v.Kind), failed)
	r.mu.Lock()
	if r.hard.Err() == nil && (c >= hopeless || c == lasting && (r.stopping || time.Since(began) >= patience)) {
		r.stop(failed)
		r.unlock()
		r.tell(stagebus.Release, again)
		return nil
	}
	r.unlock()
	r.emit(stagebus.Event{Kind: stagebus.EventError, N: int64(len(again)), Err: failed})
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.hard.Done():
	}
	return again
}

func kindName(k stagebus.Kind) string {
	switch k {
	case stagebus.KindRetry:
		return "retry"
	case stagebus.KindReject:
		return "reject"
	}
	return "settle"
}

// giveUp gives back what can't be finished any more: the drain time is over. What is in flight ends with its Submit, whose context has
// ended; what runs when its handler returns. r.mu is held.
func (r *run) giveUp() {
	r.pending.prepend(&r.again)
	for pending := r.pending.take(); pending.n > 0; {
		r.countCutOff()
		r.resolve(pending.pop(), stagebus.Release)
		pending.append(&r.pending)
	}
}
