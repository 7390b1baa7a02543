package pipeline

import (
	"context"

	"github.com/stagebus/stagebus"
)

// lane is what a run knows of a lane that it has received from.
type lane struct {
	lane     stagebus.Lane
	ctx      context.Context // of its handlers
	cancel   context.CancelCauseFunc
	open     int
	draining bool
	retired  chan struct{}
}

// laneOf returns the lane of a delivery, and watches one that is new. r.mu is held.
func (r *run) laneOf(x stagebus.Lane) *lane {
	if r.last != nil && r.last.lane == x {
		return r.last
	}
	l := r.lanes[x]
	if l == nil {
		l = &lane{lane: x, retired: make(chan struct{})}
		l.ctx, l.cancel = context.WithCancelCause(r.hard)
		r.lanes[x] = l
		if x != nil {
			// Asked at once: others of a lane that drains may have been given back already, and forgotten with it.
			l.draining = isClosed(x.Draining())
			r.wg.Go(func() { r.watchLane(l) })
		}
	}
	r.last = l
	return l
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// watchLane gives back what was not started when the lane drains, and ends its handlers' context when it ends.
func (r *run) watchLane(l *lane) {
	select {
	case <-l.lane.Draining():
	case <-l.lane.Context().Done():
	case <-r.ended:
		return
	}
	r.mu.Lock()
	l.draining = true
	r.giveBackQueued(func(it *item) bool { return it.lane == l })
	r.retire(l)
	r.unlock()
	select {
	case <-l.lane.Context().Done():
		l.cancel(context.Cause(l.lane.Context()))
	case <-l.retired:
	case <-r.ended:
	}
}

// retire forgets a lane that is over. r.mu is held.
func (r *run) retire(l *lane) {
	if !l.draining || l.open > 0 || r.lanes[l.lane] != l {
		return
	}
	delete(r.lanes, l.lane)
	if r.last == l {
		r.last = nil
	}
	close(l.retired)
	l.cancel(nil)
}
