package pipeline

import (
	"errors"
	"fmt"
	"time"

	"github.com/stagebus/stagebus"
)

// batch is what one Submit sends: the outputs of items, in their order.
type batch struct {
	items  []*item
	starts []int // of each item's outputs in ms
	ms     []stagebus.Message
}

// submit has the outputs of an item sent, after those before it of its key. r.mu is held.
func (r *run) submit(it *item) {
	if k := it.key; k != nil {
		if k.sending > 0 {
			k.waiting.push(it)
			return
		}
		k.sending++
	}
	r.pending.push(it)
}

// send is the goroutine that sends.
func (r *run) send() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.mu.Lock()
		b, pause := r.collect()
		over := r.over
		r.senderWaits = b == nil
		r.unlock()
		switch {
		case b != nil:
			stagebus.Stamp(b.ms)
			err := r.s.Producer.Submit(r.hard, b.ms, func(os []stagebus.Outcome) { r.landed(b, os) })
			if err != nil {
				r.refused(b, err)
			}
			continue
		case over:
			return
		case pause > 0:
			timer.Reset(pause)
		}
		select {
		case <-r.wakeSender:
		case <-timer.C:
		case <-r.ended:
		}
	}
}

// collect makes the next batch, or says how long to wait for those that are to be sent again (0: for a wake-up). r.mu is held.
func (r *run) collect() (b *batch, pause time.Duration) {
	r.newAgain = false
	if r.again.n > 0 {
		if pause = time.Until(r.againAt); pause <= 0 || r.hard.Err() != nil {
			r.pending.prepend(&r.again)
			pause = 0
		}
	}
	if r.inFlight >= maxInFlight {
		return nil, 0
	}
	size := 0
	var last *key
	for r.pending.n > 0 {
		// Those of one key, which are behind each other, aren't divided: one half could fail and the other go well.
		if b != nil && (len(b.ms) >= maxSend || size >= maxBytes) && (last == nil || r.pending.head.key != last) {
			break
		}
		it := r.pending.pop()
		if it.lane.ctx.Err() != nil { // too late
			r.countCutOff()
			r.resolve(it, stagebus.Release)
			continue
		}
		if b == nil {
			b = r.newBatch()
		}
		b.items = append(b.items, it)
		b.starts = append(b.starts, len(b.ms))
		b.ms = append(b.ms, it.outs...)
		size += it.bytes
		last = it.key
	}
	if b != nil {
		b.starts = append(b.starts, len(b.ms))
		r.inFlight++
	}
	return b, pause
}

func (r *run) newBatch() *batch {
	if n := len(r.batches); n > 0 {
		b := r.batches[n-1]
		r.batches = r.batches[:n-1]
		return b
	}
	return &batch{}
}

// landed takes the outcomes of a batch. It is called from the producer's goroutines.
func (r *run) landed(b *batch, os []stagebus.Outcome) {
	r.mu.Lock()
	r.inFlight--
	var errs []error
	for i := range os {
		if os[i].Err != nil && errs == nil {
			errs = make([]error, len(os))
		}
		if errs != nil {
			errs[i] = os[i].Err
		}
	}
	if errs != nil {
		r.failed(b, errs, true)
		return
	}
	r.failures = 0
	for _, it := range b.items {
		r.resolve(it, it.verdict)
	}
	r.recycle(b)
	r.unlock()
}

// refused takes the error of a Submit that has accepted nothing.
func (r *run) refused(b *batch, err error) {
	errs := make([]error, len(b.ms))
	var be *stagebus.BatchError
	aligned := errors.As(err, &be) && len(be.Errs) == len(errs)
	for i := range errs {
		switch {
		case !aligned:
			errs[i] = err
		case be.Errs[i] == nil:
			errs[i] = stagebus.ErrNotSent
		default:
			errs[i] = be.Errs[i]
		}
	}
	r.mu.Lock()
	r.inFlight--
	r.failed(b, errs, aligned || len(b.items) == 1)
}

func (r *run) recycle(b *batch) {
	clear(b.items)
	clear(b.ms)
	*b = batch{b.items[:0], b.starts[:0], b.ms[:0]}
	r.batches = append(r.batches, b)
}

// resolve settles an item whose outputs are durable, or given up, and lets the others of its key go on. r.mu is held.
func (r *run) resolve(it *item, v stagebus.Verdict) {
	k := it.key
	r.finish(it, v)
	if k == nil {
		return
	}
	k.sending--
	for k.lost && k.sending == 0 && k.waiting.n > 0 {
		r.finish(k.waiting.pop(), stagebus.Release)
	}
	for k.sending == 0 && k.waiting.n > 0 {
		// Those that wait go together, as many as one submit takes, but for one without outputs, which waits for those before it.
		n, size := 0, 0
		for k.waiting.n > 0 && len(k.waiting.head.outs) > 0 && n < maxSend && size < maxBytes {
			next := k.waiting.pop()
			n, size = n+len(next.outs), size+next.bytes
			k.sending++
			r.pending.push(next)
		}
		if k.sending == 0 {
			r.conclude(k.waiting.pop())
		}
	}
	r.advance(k)
}

// finish settles an item that has or had outputs. r.mu is held.
func (r *run) finish(it *item, v stagebus.Verdict) {
	it.verdict = v
	r.outputs -= len(it.outs)
	r.outBytes -= it.bytes
	r.conclude(it)
}

// failed decides what becomes of a batch of which something was not sent, and gives r.mu up. known says that the errors are those of the
// messages they stand for, not one for all.
func (r *run) failed(b *batch, errs []error, known bool) {
	var first error // of those that will be sent again
	var events []stagebus.Event
	n, wait, blamed := 0, false, false
	broken := orders{}
	for i, it := range b.items {
		from, to := b.starts[i], b.starts[i+1]
		at, c, err := worst(errs[from:to])
		if c == hopeless && !known {
			c = lasting
		}
		blamed = blamed || c > innocent
		switch over := r.hard.Err() != nil; { // then what failed, for whatever reason, is given back by collect
		case c == hopeless && !over:
			err = r.say(b.ms[from+at], err)
			events = append(events, stagebus.Event{Kind: stagebus.EventError, Topic: b.ms[from+at].Topic, N: 1, Err: err})
			r.resolve(it, stagebus.Reject(r.s.wrap(err).Error()))
			continue
		case !over && (c == fatal || c == lasting && r.patienceEnds(it)):
			r.stop(r.say(b.ms[from+at], err))
			broken.add(it, b.ms[from:to], errs[from:to])
			if it.key != nil {
				it.key.lost = true
			}
			r.resolve(it, stagebus.Release)
			continue
		case c == fine && !broken.has(it, b.ms[from:to]):
			r.resolve(it, it.verdict)
			continue
		case !over && it.key != nil && it.key.lost:
			r.resolve(it, stagebus.Release)
			continue
		}
		if c > innocent && first == nil {
			first = r.say(b.ms[from+at], err)
		}
		wait = wait || c > innocent
		r.outputs -= len(it.outs)
		r.outBytes -= it.bytes
		it.outs = broken.resend(it, b.ms[from:to], errs[from:to])
		it.bytes = 0
		for j := range it.outs {
			it.bytes += it.outs[j].Size()
		}
		r.outputs += len(it.outs)
		r.outBytes += it.bytes
		n += len(it.outs)
		r.again.push(it)
	}
	r.recycle(b)
	r.newAgain = r.again.n > 0
	r.againAt = time.Now()
	if wait || !blamed { // not at once for ever, when a producer blames nobody
		r.againAt = r.againAt.Add(min(firstPause<<min(r.failures, 16), lastPause))
		r.failures++
	}
	r.unlock()
	if first != nil {
		events = append(events, stagebus.Event{Kind: stagebus.EventError, N: int64(n), Err: first})
	}
	for _, e := range events {
		r.emit(e)
	}
}

// say names the output that an error is about.
func (r *run) say(m stagebus.Message, err error) error {
	return fmt.Errorf("output to topic %q: %w", m.Topic, err)
}

// patienceEnds notes the failure of an item, and says whether it has lasted long enough. r.mu is held.
func (r *run) patienceEnds(it *item) bool {
	if it.failing.IsZero() {
		it.failing = time.Now()
	}
	return r.stopping || time.Since(it.failing) >= patience
}

func worst(errs []error) (at int, c class, err error) {
	for i, e := range errs {
		if x := classify(e); x > c {
			at, c, err = i, x, e
		}
	}
	return at, c, err
}

// orders are the keys of outputs in which something has to be sent again. What went well behind it, in the key of one input, is sent again too, so that
// the last copies are in order.
type orders map[order]bool

type order struct {
	key        *key
	item       *item // instead of key, for an input without one
	topic, out string
}

func orderOf(it *item, m *stagebus.Message) order {
	o := order{key: it.key, topic: m.Topic, out: string(m.Key)}
	if it.key == nil {
		o.item = it
	}
	return o
}

func (o orders) has(it *item, ms []stagebus.Message) bool {
	for i := range ms {
		if ms[i].Key != nil && o[orderOf(it, &ms[i])] {
			return true
		}
	}
	return false
}

func (o orders) add(it *item, ms []stagebus.Message, errs []error) {
	for i := range ms {
		if errs[i] != nil && ms[i].Key != nil {
			o[orderOf(it, &ms[i])] = true
		}
	}
}

// resend returns the messages that have to be sent again.
func (o orders) resend(it *item, ms []stagebus.Message, errs []error) []stagebus.Message {
	var again []stagebus.Message
	for i := range ms {
		if errs[i] == nil && (ms[i].Key == nil || !o[orderOf(it, &ms[i])]) {
			continue
		}
		o.add(it, ms[i:i+1], []error{errs[i]})
		again = append(again, ms[i])
	}
	return again
}
