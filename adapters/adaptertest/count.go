package adaptertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

var countCases = []Case{
	{Name: "count/exact", Proves: "many producers and members of a group at once: nothing lost, nothing twice, no key backwards within a lane", run: countExactCase},
	{Name: "count/order", Proves: "one consumer gets the messages of each key without a gap and in the order of their Submits", run: countOrderCase},
	{Name: "count/verdicts", Proves: "each message comes exactly once more for each Release and Retry, among all kinds of verdicts", run: countVerdictsCase},
}

// tally counts exactly what becomes of numbered messages. It may be used from several goroutines.
type tally struct {
	mu       sync.Mutex
	want     int // messages that are sent by all senders in the end; 0 until known
	senders  int
	sent     map[string]bool
	got      map[string]int
	unmarked int // of those that came again, not marked as such
	last     map[string]int
	disorder []string
	all      chan struct{}
}

// newTally returns a tally of what so many senders send; each says when it has finished.
func newTally(senders int) *tally {
	return &tally{senders: senders, sent: map[string]bool{}, got: map[string]int{}, last: map[string]int{}, all: make(chan struct{})}
}

// message makes the seq-th message of a key, which exactly one sender uses, and notes it as sent.
func (t *tally) message(topic, key string, seq int) stagebus.Message {
	m := stagebus.Message{Topic: topic, Key: []byte(key), Body: fmt.Appendf(nil, "%s %d", key, seq)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[string(m.Body)] = true
	return m
}

// complete returns a channel that is closed when all that one more sender, the last, has sent was received.
func (t *tally) complete() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.senders--; t.senders == 0 {
		t.want = len(t.sent)
	}
	t.check()
	return t.all
}

func (t *tally) check() {
	if t.want > 0 && len(t.got) == t.want {
		t.want = 0
		close(t.all)
	}
}

// receive counts a delivery. Order is checked among the first deliveries of a key that have the same scope: a lane, or zero for
// all of them.
func (t *tally) receive(scope any, d *stagebus.Delivery) (times int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	body := string(d.Body)
	t.got[body]++
	if times = t.got[body]; times > 1 {
		if !d.Redelivered {
			t.unmarked++
		}
		return times
	}
	var seq int
	key := string(d.Key)
	rest, ok := strings.CutPrefix(body, key+" ")
	if _, err := fmt.Sscan(rest, &seq); !ok || err != nil {
		return times // never sent: the report says so
	}
	scoped := fmt.Sprintf("%v %s", scope, key)
	if last, ok := t.last[scoped]; ok && seq < last {
		t.disorder = append(t.disorder, fmt.Sprintf("%s after %d", body, last))
	}
	t.last[scoped] = seq
	t.check()
	return times
}

// report fails the test unless each message that was sent has come once, and in order.
func (t *tally) report(e *env) {
	e.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	var lost, twice, alien []string
	for b := range t.sent {
		switch n := t.got[b]; {
		case n == 0:
			lost = append(lost, b)
		case n > 1:
			twice = append(twice, fmt.Sprintf("%s (%d times)", b, n))
		}
	}
	for b := range t.got {
		if !t.sent[b] {
			alien = append(alien, b)
		}
	}
	if len(lost)+len(twice)+len(alien)+len(t.disorder) > 0 {
		e.Errorf("of %d messages %d lost%s, %d came again%s (%d deliveries not marked as such), %d never sent%s, %d out of order%s",
			len(t.sent), len(lost), few(lost), len(twice), few(twice), t.unmarked, len(alien), few(alien), len(t.disorder), few(t.disorder))
	}
}

func few(s []string) string {
	if len(s) == 0 {
		return ""
	}
	slices.Sort(s)
	return fmt.Sprintf(" %.200q", s[:min(3, len(s))])
}

// submitAll submits the messages of each key in order, in batches of changing size, without waiting for the outcomes of
// one before the next, and returns when all have theirs.
func (e *env) submitAll(p stagebus.Producer, ms []stagebus.Message) {
	ctx := e.ctx()
	var open sync.WaitGroup
	for len(ms) > 0 {
		n := min(1+rand.IntN(16), len(ms))
		open.Add(1)
		err := p.Submit(ctx, ms[:n], func(os []stagebus.Outcome) {
			defer open.Done()
			for _, o := range os {
				if o.Err != nil {
					e.Errorf("outcome: %v", o.Err)
				}
			}
		})
		if err != nil {
			open.Done()
			e.Errorf("submit: %v", err)
			break
		}
		ms = ms[n:]
	}
	closed := make(chan struct{})
	go func() { open.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-ctx.Done():
		e.Errorf("a Submit has no outcome within %v", e.h.Patience)
	}
}

func countExactCase(e *env) {
	g := e.group("g")
	const producers, consumers, parts, keys, each = 4, 3, 4, 5, 100
	topic := e.topicOf(parts, g)
	var cs []stagebus.Consumer
	for range consumers {
		cs = append(cs, e.consumer(topic, g))
	}
	t := newTally(producers)
	// A lane's order is that in which one goroutine receives: each member has one, and the tally a key for each lane.
	stop := e.members(cs, func(a arrival) { t.receive(fmt.Sprintf("%p", a.Token.Lane), &a.Delivery) })
	var wg sync.WaitGroup
	for i := range producers {
		p := e.producer()
		wg.Go(func() {
			var ms []stagebus.Message
			for seq := range each {
				for k := range keys {
					ms = append(ms, t.message(topic, fmt.Sprintf("p%d-k%d", i, k), seq))
				}
			}
			e.submitAll(p, ms)
			t.complete()
		})
	}
	wg.Wait()
	e.until(t.all)
	stop()
	for i, c := range cs {
		e.closeIt(fmt.Sprint("consumer ", i), c.Close)
	}
	for _, d := range e.sweep(e.producer(), e.consumer(topic, g), topic, parts) {
		t.receive("sweep", &d)
	}
	t.report(e)
}

// until is await for what the report says better.
func (e *env) until(ch <-chan struct{}) {
	timer := time.NewTimer(e.h.Patience)
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}

func countOrderCase(e *env) {
	const parts, keys, each = 4, 8, 125
	topic := e.topicOf(parts)
	p, c := e.producer(), e.consumer(topic, "")
	t := newTally(1)
	stop := e.members([]stagebus.Consumer{c}, func(a arrival) { t.receive(0, &a.Delivery) })
	var ms []stagebus.Message
	for i := range keys * each {
		ms = append(ms, t.message(topic, fmt.Sprint("key", i%keys), i/keys))
	}
	e.submitAll(p, ms)
	e.until(t.complete())
	stop()
	for _, d := range e.sweep(p, c, topic, parts) {
		t.receive("sweep", &d)
	}
	t.report(e)
}

func countVerdictsCase(e *env) {
	const n = 200
	topic := e.topic()
	p := e.producer()
	cs := []stagebus.Consumer{e.consumer(topic, ""), e.consumer(topic, "")}
	// The first deliveries of some are given back, or tried again, up to three times.
	plan := func(i, times int) stagebus.Verdict {
		switch {
		case i%5 == 1 && times <= 1+i%3:
			return stagebus.Release
		case i%5 == 3 && times <= 1+i%2:
			return stagebus.Retry(0)
		case i%20 == 7:
			return stagebus.Reject("by plan")
		}
		return stagebus.Done
	}
	want := map[string]int{}
	for i := range n {
		times := 1
		for k := plan(i, times).Kind; k == stagebus.KindRelease || k == stagebus.KindRetry; k = plan(i, times).Kind {
			times++
		}
		want[fmt.Sprint("m", i)] = times
	}
	var mu sync.Mutex
	got := map[string]int{}
	open := n
	ctx, cancel := context.WithTimeout(context.Background(), e.h.Patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			dst := make([]stagebus.Delivery, 8)
			for {
				k, err := c.Receive(ctx, dst)
				if err != nil {
					return // what is missing by then is reported below
				}
				for _, d := range dst[:k] {
					var i int
					if _, err := fmt.Sscanf(string(d.Body), "m%d", &i); err != nil {
						e.Errorf("got %s", describe(&d))
					}
					mu.Lock()
					got[string(d.Body)]++
					times := got[string(d.Body)]
					mu.Unlock()
					v := plan(i, times)
					if err := c.Settle(ctx, v, d.Token); err != nil {
						e.Errorf("settle %s of %s: %v", verdict(v), describe(&d), err)
					}
					if times > 1 && !d.Redelivered && v.Kind == stagebus.KindDone && i%5 == 1 {
						e.Errorf("%s came again after a Release and isn't marked", describe(&d))
					}
					mu.Lock()
					if v.Kind == stagebus.KindDone || v.Kind == stagebus.KindReject {
						if open--; open == 0 {
							cancel()
						}
					}
					mu.Unlock()
				}
			}
		})
	}
	e.sendTexts(p, topic, numbered("m", n)...)
	wg.Wait()
	for _, c := range cs {
		e.closeIt("consumer", c.Close)
	}
	for _, d := range e.sweep(p, e.consumer(topic, ""), topic, 1) {
		got[string(d.Body)]++
	}
	for b, times := range want {
		if got[b] != times {
			e.Errorf("%s came %d times, want %d for the verdicts that it got", b, got[b], times)
		}
	}
}
