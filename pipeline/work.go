package pipeline

import (
	"runtime/debug"

	"github.com/stagebus/stagebus"
)

// work is a worker: it handles what is ready.
func (r *run) work() {
	var it *item // being handled
	defer func() {
		if it != nil { // the handler has ended this goroutine
			r.mu.Lock()
			r.stop(panicked(&it.d, errGoexit, debug.Stack()))
			r.handled(it, nil, stagebus.Release)
			r.unlock()
		}
	}()
	r.mu.Lock()
	for {
		for (r.ready.n == 0 || r.full()) && !r.over {
			r.wake()
			r.waitingWorkers++
			r.toWork.Wait() // whoever signals has counted it off
		}
		if r.over {
			r.mu.Unlock()
			return
		}
		it = r.ready.pop()
		r.unlock()
		outs, v, err := r.handle(it)
		r.mu.Lock()
		if err != nil {
			r.stop(err)
		}
		r.handled(it, outs, v)
		it = nil
	}
}

// handle calls the handler.
func (r *run) handle(it *item) (outs []stagebus.Message, v stagebus.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			outs, v, err = nil, stagebus.Release, panicked(&it.d, p, debug.Stack())
		}
	}()
	outs, v = r.s.Handle(it.lane.ctx, &it.d)
	if len(outs) > 0 && r.s.Producer == nil {
		return nil, stagebus.Release, errNoProducer
	}
	return outs, v, nil
}

var errNoProducer = &stagebus.InvalidError{Field: "Stage.Producer", Reason: "the handler returned messages and there is none to send them"}

// handled takes what a handler has returned. r.mu is held.
func (r *run) handled(it *item, outs []stagebus.Message, v stagebus.Verdict) {
	k := it.key
	if k != nil {
		k.busy = false
		k.release = k.release || v.Kind == stagebus.KindRelease
	}
	it.verdict = v
	if it.lane.ctx.Err() != nil { // too late: whoever gets the message again does the work
		outs, it.verdict = nil, stagebus.Release
		r.countCutOff()
	} else if k != nil && k.lost {
		outs, it.verdict = nil, stagebus.Release
	}
	switch {
	case len(outs) > 0:
		it.outs, it.bytes = outs, 0
		for i := range outs {
			it.bytes += outs[i].Size()
		}
		r.outputs += len(outs)
		r.outBytes += it.bytes
		r.submit(it)
	case k != nil && k.sending > 0 && it.verdict.Kind == stagebus.KindRelease:
		k.waiting.push(it)
	default:
		r.conclude(it)
	}
	if k != nil {
		r.advance(k)
	}
}

// full says that enough outputs wait to be durable. r.mu is held.
func (r *run) full() bool { return r.outputs >= maxOutputs || r.outBytes >= maxOutBytes }

// countCutOff counts a delivery that the end of the drain time has cut off, not one whose lane has ended. r.mu is held.
func (r *run) countCutOff() {
	if r.hard.Err() != nil {
		r.cutOff++
	}
}
