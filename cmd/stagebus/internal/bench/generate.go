package bench

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stagebus/stagebus"
)

// generator sends the messages of one producer.
type generator struct {
	p        *phase
	id       int
	producer stagebus.Producer
	book     *book
	keys     [][]byte
	batch    int

	next uint64          // number of the next message
	dues []time.Duration // of the batch that is made
	// free is since when nothing but the schedule has held this generator up.
	free     time.Duration
	measured int64 // messages sent after the warm-up
	share    int64 // of Settings.Count; 0: without end
	planned  int64 // messages of the schedule
	timer    *time.Timer
	hopeless atomic.Int32 // batches of which no message was confirmed, while none ever was

	mu      sync.Mutex // protects the following
	bodies  [][]byte   // that nobody uses
	flights []*flight
}

// flight is the messages of one Submit.
type flight struct {
	first uint64
	ms    []stagebus.Message
	dues  []time.Duration
}

func newGenerator(p *phase, id int, producer stagebus.Producer) *generator {
	g := &generator{p: p, id: id, producer: producer, batch: p.s.batch(p.size)}
	for k := id; k < p.s.Keys || k == id && p.s.Keys > 0; k += p.s.Producers {
		g.keys = append(g.keys, []byte("key-"+strconv.Itoa(k%p.s.Keys)))
	}
	g.book = newBook(len(g.keys))
	g.book.blind = !p.arrives()
	g.share = shareOf(p.s.Count, id, p.s.Producers)
	if p.rate > 0 {
		g.planned = shareOf(p.planned(), id, p.s.Producers)
	}
	return g
}

// shareOf is how many of n things number id of several gets, when they go round.
func shareOf(n int64, id, of int) int64 { return (n - int64(id) + int64(of) - 1) / int64(of) }

// hopeless is so many failures at the beginning that there is no point in going on: the topic is missing, or nobody may write to it.
const hopeless = 10

// run sends until the phase's time or count is over, or ctx ends. work bounds what was begun. An error is why nothing more can be sent.
func (g *generator) run(ctx, work context.Context) error {
	g.timer = time.NewTimer(time.Hour)
	defer g.timer.Stop()
	plan := g.asFastAsPossible
	if g.p.rate > 0 {
		plan = g.scheduled
	}
	for {
		g.dues = g.dues[:0]
		plan(ctx)
		if len(g.dues) == 0 {
			return nil
		}
		err := g.submit(work)
		if g.hopeless.Load() > hopeless {
			err = g.p.firstError()
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		g.free = g.p.now()
	}
}

// asFastAsPossible fills dues with a batch that is due now, as soon as there is room; with nothing at the end.
func (g *generator) asFastAsPossible(ctx context.Context) {
	if ctx.Err() != nil || g.p.s.Count > 0 && g.measured >= g.share {
		return
	}
	n := g.batch
	if g.p.gate != nil {
		n = g.p.gate.enter(ctx, n)
	}
	now := g.p.now()
	if now >= g.p.rec.from { // only now: the wait may have been the end of the warm-up
		if most := g.share - g.measured; g.p.s.Count > 0 && int64(n) > most {
			g.p.gate.leave(n - int(most))
			n = int(most)
		}
		g.measured += int64(n)
	}
	for range n {
		g.dues = append(g.dues, now)
	}
}

// scheduled fills dues with all that the schedule wants sent by now, a batch at most; it waits if that is nothing.
func (g *generator) scheduled(ctx context.Context) {
	k := int64(g.next)
	if k >= g.planned || ctx.Err() != nil {
		return
	}
	due, now := g.due(k), g.p.now()
	if now >= g.p.giveUp() {
		g.p.unsent.Add(g.planned - k)
		return
	}
	if due > now {
		g.timer.Reset(due - now)
		select {
		case <-g.timer.C:
		case <-ctx.Done():
			return
		}
		now = g.p.now()
	}
	g.p.rec.wasLate(now, now-max(due, g.free))
	for ; len(g.dues) < g.batch && k < g.planned; k++ {
		if due = g.due(k); due > now {
			break
		}
		g.dues = append(g.dues, due)
	}
}

// due is when message k of this producer is to be sent. The producers take turns.
func (g *generator) due(k int64) time.Duration {
	n := float64(k)*float64(g.p.s.Producers) + float64(g.id)
	return time.Duration(n / g.p.rate * float64(time.Second))
}

func (g *generator) submit(ctx context.Context) error {
	f := g.flight()
	g.next += uint64(len(f.ms))
	g.p.open.Add(1)
	err := g.producer.Submit(ctx, f.ms, func(os []stagebus.Outcome) {
		defer g.p.open.Done()
		g.outcomes(f, os)
	})
	if err == nil {
		return nil
	}
	g.p.open.Done()
	for i := range f.ms {
		g.book.outcome(f.first+uint64(i), false, false)
	}
	g.p.gate.leave(len(f.ms))
	g.p.fail(err)
	return err
}

// flight makes a message for each of dues. Bodies are used again once their outcome is known, so that the figures are the broker's client's
// and not those of making bodies.
func (g *generator) flight() *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	var f *flight
	if n := len(g.flights); n > 0 {
		f, g.flights = g.flights[n-1], g.flights[:n-1]
	} else {
		f = &flight{}
	}
	f.first, f.ms = g.next, f.ms[:0]
	f.dues = append(f.dues[:0], g.dues...)
	for i, due := range f.dues {
		seq := f.first + uint64(i)
		m := stagebus.Message{Topic: g.p.topic, Body: g.body()}
		stamp{g.p.id, uint32(g.id), seq, due}.put(m.Body)
		if len(g.keys) > 0 {
			m.Key = g.keys[seq%uint64(len(g.keys))]
		}
		if g.p.s.Mode == Request {
			m.ReplyTo, m.CorrelationID = g.p.reply, strconv.FormatUint(seq, 10)
		}
		f.ms = append(f.ms, m)
	}
	return f
}

func (g *generator) body() []byte {
	if n := len(g.bodies); n > 0 {
		b := g.bodies[n-1]
		g.bodies = g.bodies[:n-1]
		return b
	}
	return newBody(g.p.size)
}

// outcomes takes note of what became of a flight. It runs in the adapter's goroutines.
func (g *generator) outcomes(f *flight, os []stagebus.Outcome) {
	now := g.p.now()
	failed, bytes := 0, 0
	confirmed := f.dues[:0] // in place: what was read is written again
	for i := range os {
		err := os[i].Err
		g.book.outcome(f.first+uint64(i), err == nil, errors.Is(err, stagebus.ErrUncertain))
		if err != nil {
			failed++
			g.p.fail(err)
			continue
		}
		confirmed = append(confirmed, f.dues[i])
		bytes += f.ms[i].Size()
	}
	if failed == len(os) && g.book.nothing() {
		g.hopeless.Add(1)
	}
	g.p.gate.leave(failed)
	if !g.p.arrives() {
		g.p.rec.completed(now, confirmed, int64(bytes))
	}
	g.p.confirmed(len(confirmed), bytes)

	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range f.ms {
		if !errors.Is(os[i].Err, stagebus.ErrUncertain) { // else the bytes must stay as they are
			g.bodies = append(g.bodies, f.ms[i].Body)
		}
		f.ms[i] = stagebus.Message{}
	}
	g.flights = append(g.flights, f)
}

// counts are those of this generator's book.
func (g *generator) counts(c *Counts) {
	lost := g.book.lost()
	g.book.mu.Lock()
	defer g.book.mu.Unlock()
	c.Confirmed += g.book.acked
	c.Failed += g.book.failed
	c.Uncertain += g.book.uncertain
	c.Received += g.book.arrived
	c.Duplicate += g.book.doubled
	c.OutOfOrder += g.book.swapped
	if g.p.arrives() {
		c.Lost += lost
	}
}
