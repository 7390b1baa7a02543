package demo

import (
	"context"
	"errors"
	"sync"

	"github.com/stagebus/stagebus"
)

// errKilled is the cause of a stage's context when it had an accident.
var errKilled = errors.New("killed")

// accident kills a training worker: its connections are closed at once, nothing is settled, given back or said. A nil accident never happens.
type accident struct {
	step     int        // at the first step from this one on
	settling bool       // when the gradient is sent and the input not yet settled, else before it is sent
	note     func(int)  // told of the step
	kill     func()     // set by the stage that it will happen to
	mu       sync.Mutex // protects the following
	armed    bool
	happened bool
}

// before is called with a message that has been handled and not settled. It returns whether the worker is dead.
func (a *accident) before(m *stagebus.Message) bool {
	if a == nil {
		return false
	}
	step, err := number(m, headerStep, a.step+1<<20)
	if err != nil || step < a.step {
		return false
	}
	a.mu.Lock()
	a.armed = !a.happened
	now := a.armed && !a.settling
	a.mu.Unlock()
	if now {
		a.happen(step)
	}
	return now
}

func (a *accident) happen(step int) {
	a.mu.Lock()
	if !a.armed || a.happened {
		a.mu.Unlock()
		return
	}
	a.happened = true
	a.mu.Unlock()
	a.note(step)
	a.kill()
}

// consumer puts the accident between a worker and its settlements.
func (a *accident) consumer(c stagebus.Consumer) stagebus.Consumer {
	if a == nil {
		return c
	}
	return &doomed{c, a}
}

type doomed struct {
	inner stagebus.Consumer
	a     *accident
}

func (d *doomed) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	return d.inner.Receive(ctx, dst)
}

func (d *doomed) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	d.a.mu.Lock()
	dead := d.a.happened
	now := d.a.armed && d.a.settling && !dead
	d.a.mu.Unlock()
	if now {
		d.a.happen(d.a.step)
	}
	if !now && !dead {
		return d.inner.Settle(ctx, v, ts...)
	}
	be := &stagebus.BatchError{Errs: make([]error, len(ts))}
	for i := range be.Errs {
		be.Errs[i] = stagebus.ErrStale
	}
	return be
}

func (d *doomed) Flush(ctx context.Context) error { return d.inner.Flush(ctx) }
func (d *doomed) Close(ctx context.Context) error { return d.inner.Close(ctx) }

// trainers' lives: each worker has one accident, at another time and another moment.
func (r *run) accidents() map[string]*accident {
	if !r.chaos {
		return nil
	}
	steps := r.o.Size.Steps
	as := map[string]*accident{
		train1: {step: steps / 3},
		train2: {step: 2 * steps / 3, settling: true},
	}
	for name, a := range as {
		a.note = func(step int) {
			moment := "before its gradient was sent"
			if a.settling {
				moment = "when its gradient was sent and its input not settled"
			}
			r.o.notef("%s is killed at step %d, %s", name, step, moment)
		}
	}
	return as
}

// survive runs a training worker, and once more after it was killed.
func (r *run) survive(ctx context.Context, name string, a *accident) error {
	err := r.stage(ctx, name, a)
	if a == nil || !errors.Is(err, errKilled) || ctx.Err() != nil {
		return err
	}
	r.killed.add(1)
	r.o.notef("%s starts again", name)
	return r.stage(ctx, name, nil)
}
