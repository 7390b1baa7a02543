package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stagebus/stagebus"
)

const (
	// patience is how long nothing may arrive until what is missing counts as lost.
	patience = 10 * time.Second
	// graceTime is how long what was begun may go on after an interrupt.
	graceTime = 3 * time.Second
	// tidyTime bounds what comes after a measurement: closing, and deleting topics.
	tidyTime = 15 * time.Second
)

// phase is one measurement: one broker, one size, one load, one topic.
type phase struct {
	s    Settings
	t    *Target
	size int
	rate float64 // 0: as fast as possible

	id    uint64
	topic string
	reply string // topic of replies, for Request
	start time.Time
	rec   *recorder
	gens  []*generator
	gate  *gate // nil: none
	open  sync.WaitGroup
	purge chan struct{} // holds a token when a topic in memory fills up; nil: none

	left       error // why topics are left on the broker
	firstAfter time.Duration
	unsent     atomic.Int64
	foreign    atomic.Int64
	moved      chan struct{} // holds a token when something has arrived

	mu       sync.Mutex // protects the following
	first    error
	begun    usage
	unpurged int // messages confirmed since the last purge
}

func newPhase(s Settings, t *Target, size int, rate float64, topic string) *phase {
	p := &phase{s: s, t: t, size: size, rate: rate, id: rand.Uint64(), topic: topic, moved: make(chan struct{}, 1)}
	if s.Mode == Request {
		p.reply = topic + ".reply"
	}
	if p.s.Mode == Consume {
		p.s.Warmup = 0
	}
	p.rec = newRecorder(p.s.Warmup, rate > 0)
	if rate > 0 {
		p.rec.until = p.scheduleEnd()
	}
	if rate == 0 && (s.Mode == Both || s.Mode == Request) {
		p.gate = newGate(s.inFlight(size))
	}
	if s.Mode == Publish && t.kind == Memory && s.Topic == "" {
		p.purge = make(chan struct{}, 1)
	}
	return p
}

// now is the time since the start of the phase.
func (p *phase) now() time.Duration { return time.Since(p.start) }

// arrives tells whether messages are received, or answered.
func (p *phase) arrives() bool { return p.s.Mode != Publish }

// ends is when the last message is to be sent; false: only the count says.
func (p *phase) ends() (time.Duration, bool) { return p.s.Warmup + p.s.Duration, p.s.Duration > 0 }

// giveUp is when what the schedule still wants is given up. It is late: what a stalled broker holds up at the end belongs to the figures too.
func (p *phase) giveUp() time.Duration {
	end := p.scheduleEnd()
	return end + max(end, patience)
}

// scheduleEnd is when the last message is to be sent.
func (p *phase) scheduleEnd() time.Duration {
	return time.Duration(float64(p.planned()) / p.rate * float64(time.Second))
}

// planned is how many messages the schedule has.
func (p *phase) planned() int64 {
	warm := int64(p.rate * p.s.Warmup.Seconds())
	n := int64(p.rate * p.s.Duration.Seconds())
	if p.s.Count > 0 && (p.s.Duration == 0 || p.s.Count < n) {
		n = p.s.Count
	}
	return warm + max(n, 1)
}

// fail notes the first error.
func (p *phase) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		p.first = err
	}
}

func (p *phase) firstError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

// confirmed notes what the broker has taken, so that a topic in memory, which nobody reads, doesn't fill up.
func (p *phase) confirmed(n, bytes int) {
	if p.purge == nil {
		return
	}
	const messages, most = 1 << 13, 32 << 20
	p.mu.Lock()
	p.unpurged += max(n, bytes/(most/messages))
	full := p.unpurged >= messages
	if full {
		p.unpurged = 0
	}
	p.mu.Unlock()
	if full {
		nudge(p.purge)
	}
}

// nudge puts a token into a channel that holds one.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run measures. The round is what there is, also with an error.
func (p *phase) run(ctx context.Context, watch func(messages int64, elapsed time.Duration)) (r Round, err error) {
	work, stop := linger(ctx, graceTime)
	defer stop()
	if p.s.Topic == "" {
		defer func() {
			p.left = p.remove()
			err = errors.Join(err, p.left)
		}()
		for _, topic := range []string{p.topic, p.reply} {
			if topic == "" {
				continue
			}
			if err := p.t.declare(ctx, p.s, topic); err != nil {
				return r, err
			}
		}
	}
	ends := &ends{p: p}
	defer func() { err = errors.Join(err, ends.close()) }()
	for id := range p.s.Producers {
		producer, err := p.t.producer(ctx, p.s)
		if err != nil {
			return r, err
		}
		ends.producers = append(ends.producers, producer)
		p.gens = append(p.gens, newGenerator(p, id, producer))
	}
	if p.s.Mode == Consume {
		err = p.consume(ctx, work, ends, watch)
	} else {
		err = p.send(ctx, work, ends, watch)
	}
	return p.result(), err
}

// send runs the generators, with consumers beside them unless nobody receives.
func (p *phase) send(ctx, work context.Context, ends *ends, watch func(int64, time.Duration)) error {
	if p.arrives() {
		if err := ends.openConsumers(ctx); err != nil {
			return err
		}
	}
	p.start = time.Now()
	ends.receive()
	err := p.generate(ctx, work, ends.failed, watch)
	p.open.Wait()
	if p.arrives() {
		p.drain(ctx, ends.failed)
	}
	return errors.Join(err, ends.stop())
}

// consume publishes all first, and then reads it.
func (p *phase) consume(ctx, work context.Context, ends *ends, watch func(int64, time.Duration)) error {
	if p.s.Topic != "" { // there is no other way to get what is sent now, and only that
		if err := ends.openConsumers(ctx); err != nil {
			return err
		}
	}
	p.start = time.Now()
	err := p.generate(ctx, work, nil, func(int64, time.Duration) { watch(0, p.now()) })
	p.open.Wait()
	if err != nil || ctx.Err() != nil {
		return err
	}
	opened := p.now()
	if len(ends.consumers) == 0 {
		if err := ends.openConsumers(ctx); err != nil {
			return err
		}
	}
	p.begin()
	p.rec = newRecorder(p.now(), false)
	p.rec.dues = 0
	ends.receive()
	done := make(chan struct{})
	go func() { p.drain(ctx, ends.failed); close(done) }()
	p.watch(done, watch)
	p.firstAfter = max(0, p.rec.first-opened)
	return ends.stop()
}

// generate runs the generators to their end and takes the measure of this process when the warm-up is over.
func (p *phase) generate(ctx, work context.Context, failed <-chan struct{}, watch func(int64, time.Duration)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var beside sync.WaitGroup
	quit := make(chan struct{})
	switch end, ok := p.ends(); {
	case ok && p.rate == 0:
		ctx, cancel = context.WithTimeout(ctx, end)
		defer cancel()
	case p.gate != nil: // what fills it may be lost, and then the count is never reached
		beside.Go(func() {
			if p.gate.stuck(patience, quit) {
				cancel()
			}
		})
	}
	beside.Go(func() {
		select {
		case <-failed: // nil for none: never
			cancel()
		case <-quit:
		}
	})
	if p.purge != nil {
		beside.Go(func() { p.empty(work, quit) })
	}
	p.begin()
	if p.s.Warmup > 0 {
		warm := time.AfterFunc(p.s.Warmup, p.begin)
		defer warm.Stop()
	}
	var wg sync.WaitGroup
	errs := make([]error, len(p.gens))
	for i, g := range p.gens {
		wg.Go(func() {
			if errs[i] = g.run(ctx, work); errs[i] != nil {
				cancel() // the others would only make it worse
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	p.watch(done, watch)
	close(quit)
	beside.Wait()
	return errors.Join(errs...)
}

// begin takes the measure of this process.
func (p *phase) begin() {
	u := use()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = u
}

// empty purges a topic in memory whenever it fills up.
func (p *phase) empty(ctx context.Context, quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		case <-p.purge:
			if err := p.t.b.Admin().Purge(ctx, p.topic, stagebus.DefaultGroup); err != nil {
				p.fail(err)
			}
		}
	}
}

// watch reports progress until done is closed.
func (p *phase) watch(done <-chan struct{}, watch func(int64, time.Duration)) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			watch(p.rec.count(), p.now())
		}
	}
}

// drain waits until all that was confirmed has arrived, or nothing has for so long that it is lost.
func (p *phase) drain(ctx context.Context, failed <-chan struct{}) {
	wait := patience
	timer := time.NewTimer(wait)
	defer timer.Stop()
	interrupted := ctx.Done()
	for p.waiting() > 0 {
		select {
		case <-p.moved:
		case <-timer.C:
			return
		case <-failed:
			return
		case <-interrupted:
			interrupted, wait = nil, graceTime
		}
		timer.Reset(wait)
	}
}

func (p *phase) waiting() (n int64) {
	for _, g := range p.gens {
		n += g.book.waiting()
	}
	return n
}

// remove deletes the topics that were made.
func (p *phase) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), tidyTime)
	defer cancel()
	var err error
	for _, topic := range []string{p.topic, p.reply} {
		if topic == "" {
			continue
		}
		if e := p.t.b.Admin().Delete(ctx, topic); e != nil && !errors.Is(e, stagebus.ErrNotFound) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// linger returns a context that ends so long after ctx, and with stop.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var mu sync.Mutex
	var timer *time.Timer
	unhook := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(d, cancel)
	})
	return work, func() {
		unhook()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}
