package pipeline

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// Run receives from s.Consumer, handles with s.Workers, sends what the handlers return and settles, until ctx ends or the consumer is closed. It
// returns when everything that it received is settled or given back, and all its goroutines have ended: a handler that ignores
// the end of its context keeps it from returning.
//
//   - An input is settled when its outputs are durable. Outputs that failed are sent again, under the same ID (those without one get
//     one), with growing pauses; while a broker refuses, Run holds what it has and receives no more. The outputs of one key are sent in the order of
//     its inputs: the next wait until those before are durable. Outputs and settlements that are there at the same time go together.
//   - An output that can never be sent (ErrInvalid, ErrTooLarge) has its input rejected with that reason. One that fails for lack of a
//     topic, a permission or the like ends Run if that lasts for some seconds.
//   - A delivery with Err set is rejected with it, without calling Handle.
//   - When a lane begins to drain, nothing more of it is started, and what was not started is given back. A settlement that comes too
//     late (ErrStale) is normal: the message comes again.
//   - When ctx ends, nothing more is received or started; running handlers go on with a live context for s.Drain, their outputs are sent,
//     their inputs settled, all others given back. Run then returns nil, whatever the cause of ctx: being stopped is no failure. If
//     the time was not enough, the error is [ErrDrain] and says how many messages were cut off.
//   - A closed consumer (io.EOF) ends Run with nil, after all that it delivered is settled.
//   - A handler that panics ends Run in the same order as the end of ctx does, with a [*PanicError]; its input is given back.
//   - Any other failure ends Run in that order too, and is returned.
func Run(ctx context.Context, s Stage) error {
	s, err := s.withDefaults()
	if err != nil {
		return s.wrap(err)
	}
	if ctx.Err() != nil {
		return nil
	}
	r := newRun(ctx, s)
	receiving, stopReceiving := context.WithCancel(ctx)
	defer stopReceiving()
	r.stopReceiving = stopReceiving
	for range s.Workers {
		r.wg.Go(r.work)
	}
	r.wg.Go(r.send)
	r.wg.Go(r.settle)
	r.wg.Go(func() { r.watch(ctx) })

	r.receive(receiving)
	r.end()
	return s.wrap(r.result())
}

const (
	maxOpen     = 16       // batches' worth of deliveries that are open at the same time
	maxOutputs  = 8192     // outputs that are not durable, before another handler is started
	maxOutBytes = 16 << 20 // their bytes
	maxSend     = 1024     // outputs of one Submit, but for those of one input or key, which go together
	maxBytes    = 1 << 20  // their bytes
	maxInFlight = 4        // Submits that wait for their outcomes
	maxMovers   = 8        // calls of Settle that wait for a copy to be durable

	firstPause = 20 * time.Millisecond // before something that failed is tried again; it doubles
	lastPause  = 2 * time.Second
	patience   = 5 * time.Second // with failures that somebody must mend
)

// run is one call of Run. Its state is behind one mutex, which is taken once for each delivery by its worker, and once for each batch by
// all others; nothing of others is called while it is held, but for Lane.Draining.
type run struct {
	s             Stage
	base          context.Context // has no end
	hard          context.Context // ends when the drain time is over, with ErrDrain
	cut           context.CancelCauseFunc
	stopReceiving context.CancelFunc
	seed          maphash.Seed
	limit         int
	wg            sync.WaitGroup
	stopped       chan struct{} // closed when stopping
	ended         chan struct{} // closed when over
	wakeSender    chan struct{} // capacity 1

	mu                           sync.Mutex // protects the following
	toWork, toSettle, room, idle sync.Cond
	stopping                     bool      // start nothing, receive nothing
	deadline                     time.Time // of the drain, when stopping
	over                         bool      // all is settled: the goroutines end
	err                          error     // why it is stopping; nil for the end of ctx
	cutOff                       int       // deliveries that were given back though their handler had begun
	flush                        bool      // the consumer is open: tell the broker before the end

	open  int // received, not settled
	lanes map[stagebus.Lane]*lane
	last  *lane // of the last delivery
	keys  map[uint64]*key
	ready list // to be handled, at most one of each key
	items list // free
	spare []*key

	waitingWorkers int
	settlerWaits   bool
	senderWaits    bool

	outputs, outBytes int  // not durable yet
	pending           list // outputs to be sent
	again             list // outputs to be sent again, at…
	againAt           time.Time
	newAgain          bool // the sender has not seen againAt
	failures          int  // sends since the last that went well
	inFlight          int
	batches           []*batch // free

	done, back []stagebus.Token // to be settled with Done and with Release
	moves      list             // to be settled with Retry and Reject
	movers     int
}

func newRun(ctx context.Context, s Stage) *run {
	r := &run{
		s: s, base: context.WithoutCancel(ctx), seed: maphash.MakeSeed(), limit: maxOpen * s.Batch, flush: true,
		stopped: make(chan struct{}), ended: make(chan struct{}), wakeSender: make(chan struct{}, 1),
		lanes: map[stagebus.Lane]*lane{}, keys: map[uint64]*key{},
	}
	r.hard, r.cut = context.WithCancelCause(r.base)
	for _, c := range []*sync.Cond{&r.toWork, &r.toSettle, &r.room, &r.idle} {
		c.L = &r.mu
	}
	return r
}

// receive hands deliveries to the workers until there are no more.
func (r *run) receive(ctx context.Context) {
	dst := make([]stagebus.Delivery, r.s.Batch)
	for {
		r.mu.Lock()
		for r.open >= r.limit && !r.stopping {
			r.room.Wait()
		}
		room, stopping := r.limit-r.open, r.stopping
		r.mu.Unlock()
		if stopping {
			return
		}
		n, err := r.s.Consumer.Receive(ctx, dst[:min(room, len(dst))])
		r.dispatch(dst[:n])
		clear(dst[:n])
		if err == nil {
			continue
		}
		r.mu.Lock()
		switch {
		case errors.Is(err, io.EOF):
			r.flush = false // Close does that
		case ctx.Err() != nil:
			r.stop(nil)
		default:
			r.stop(fmt.Errorf("receive: %w", err))
		}
		r.unlock()
		return
	}
}

func (r *run) dispatch(ds []stagebus.Delivery) {
	r.mu.Lock()
	defer r.unlock()
	r.open += len(ds)
	var items list
	for i := range ds { // all of them first: a lane that drains is forgotten with the last that is given back
		it := r.newItem()
		it.d = ds[i]
		it.lane = r.laneOf(it.d.Token.Lane)
		it.lane.open++
		items.push(it)
	}
	for items.n > 0 {
		it := items.pop()
		switch {
		case it.d.Err != nil:
			it.verdict = stagebus.Reject(it.d.Err.Error())
			r.conclude(it)
		case it.d.Key != nil:
			r.enqueue(it)
		case r.stopping || it.lane.draining:
			r.giveBack(it)
		default:
			r.ready.push(it)
		}
	}
}

// watch ends the run in order when ctx ends, and in disorder when the drain time is over.
func (r *run) watch(ctx context.Context) {
	select {
	case <-ctx.Done():
		r.mu.Lock()
		r.stop(nil)
		r.unlock()
	case <-r.stopped:
	case <-r.ended:
		return
	}
	t := time.NewTimer(r.s.Drain)
	defer t.Stop()
	select {
	case <-t.C:
		r.cut(ErrDrain)
		r.mu.Lock()
		r.giveUp()
		r.unlock()
	case <-r.ended:
	}
}

// stop begins the end: nothing is received or started any more. r.mu is held.
func (r *run) stop(err error) {
	if r.err == nil {
		r.err = err
	}
	if r.stopping {
		return
	}
	r.stopping = true
	r.deadline = time.Now().Add(r.s.Drain)
	close(r.stopped)
	r.stopReceiving()
	r.room.Broadcast()
	r.giveBackQueued(func(*item) bool { return true })
}

// end waits until nothing is open, and for the goroutines.
func (r *run) end() {
	r.mu.Lock()
	for r.open > 0 {
		r.idle.Wait()
	}
	r.over = true
	r.toWork.Broadcast()
	r.toSettle.Broadcast()
	r.mu.Unlock()
	close(r.ended)
	r.wg.Wait()
	for _, l := range r.lanes {
		l.cancel(nil)
	}
}

func (r *run) result() error {
	err := r.err
	if r.flush && r.cutOff == 0 { // else the time is over: Close does it
		// Also after a failure: what comes again because the broker didn't hear of its settlement is handled twice.
		ctx, cancel := context.WithDeadline(r.base, r.deadline)
		defer cancel()
		if e := r.s.Consumer.Flush(ctx); e != nil && !errors.Is(e, stagebus.ErrClosed) && !errors.Is(e, stagebus.ErrStale) {
			err = errors.Join(err, fmt.Errorf("settlements may not have reached the broker, their messages would come again: %w", e))
		}
	}
	if r.cutOff > 0 {
		err = errors.Join(err, fmt.Errorf("%w (%v): %d messages were cut off and given back, they come again", ErrDrain, r.s.Drain, r.cutOff))
	}
	r.cut(nil)
	return err
}

// unlock wakes who has something to do, and gives the mutex up.
func (r *run) unlock() {
	r.wake()
	r.mu.Unlock()
}

// wake wakes who has something to do. r.mu is held.
func (r *run) wake() {
	if r.settlerWaits && len(r.done)+len(r.back) > 0 {
		r.settlerWaits = false
		r.toSettle.Signal()
	}
	if r.senderWaits && r.inFlight < maxInFlight && (r.pending.n > 0 || r.newAgain) {
		r.senderWaits = false
		select {
		case r.wakeSender <- struct{}{}:
		default:
		}
	}
	if r.waitingWorkers > 0 && r.ready.n > 0 && !r.full() {
		r.waitingWorkers-- // who wakes up wakes the next
		r.toWork.Signal()
	}
	for r.moves.n > 0 && r.movers < min(maxMovers, r.moves.n) {
		r.movers++
		r.wg.Go(r.move)
	}
}

// emit tells the hook of something. r.mu is not held.
func (r *run) emit(e stagebus.Event) {
	e.Err = r.s.wrap(e.Err)
	r.s.Hook.Emit(e)
}
