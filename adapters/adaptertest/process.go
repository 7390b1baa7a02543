package adaptertest

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

var processCases = []Case{
	{Name: "process/goroutines", Proves: "when Close has returned, the adapter's goroutines have ended", run: goroutinesCase, alone: true},
	{Name: "process/allocations", Proves: "a message sent, received and settled costs no more allocations than the harness allows", run: allocationsCase, alone: true},
}

// goroutinesCase uses everything, closes it, and looks at once. A goroutine that waits for something then has nobody who
// waits for it; one that runs may be on its last lines and is looked at again.
func goroutinesCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	before := goroutines()
	b := e.h.Open(e.TB, stagebus.BrokerOptions{Stack: e.h.stack})
	p := e.producerOf(b, stagebus.ProducerOptions{})
	c := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: g})
	other := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}})
	tail := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Ephemeral})
	e.sendTexts(p, topic, numbered("m", 20)...)
	ds := e.receive(c, 20)
	e.settle(c, stagebus.Done, ds[:5]...)
	e.settle(c, stagebus.Retry(0), ds[5])
	e.settle(c, stagebus.Reject("r"), ds[6])
	e.settle(c, stagebus.Release, ds[7])
	e.flush(c)
	e.receive(other, 3) // not settled, the rest not received
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		for dst := make([]stagebus.Delivery, 30); ; {
			if _, err := tail.Receive(ctx, dst); err != nil {
				return
			}
		}
	}()
	e.closeIt("consumer", c.Close)
	e.closeIt("broker", b.Close)
	left := e.left(before)
	e.await(waited, "Receive ends with its consumer")
	if len(left) > 0 {
		e.Errorf("%d goroutines have outlived Close, the first:\n%s", len(left), left[0])
	}
}

// left returns the stacks of goroutines that are there and were not before.
func (e *env) left(before map[string]string) []string {
	deadline := time.Now().Add(max(e.h.Linger, time.Second))
	linger := time.Now().Add(e.h.Linger)
	for {
		var waiting, running []string
		for id, stack := range goroutines() {
			if before[id] != "" || e.foreign(stack) {
				continue
			}
			if state := stateOf.FindString(stack); strings.Contains(state, "running") || strings.Contains(state, "runnable") {
				running = append(running, stack)
			} else {
				waiting = append(waiting, stack)
			}
		}
		now := time.Now()
		switch {
		case len(waiting)+len(running) == 0:
			return nil
		case len(waiting) > 0 && now.After(linger), now.After(deadline):
			return append(waiting, running...)
		}
		runtime.Gosched()
	}
}

func (e *env) foreign(stack string) bool {
	for _, part := range append(e.h.Foreign, "adaptertest.goroutinesCase.func", "testing.") {
		if strings.Contains(stack, part) {
			return true
		}
	}
	return false
}

var (
	header  = regexp.MustCompile(`(?m)^goroutine (\d+) `)
	stateOf = regexp.MustCompile(`\[[^\]]*\]`)
)

// goroutines returns the stacks of all goroutines but this one, by their number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if m := header.FindStringSubmatch(stack); m != nil && i > 0 { // the first is the caller's
			all[m[1]] = stack
		}
	}
	return all
}

func allocationsCase(e *env) {
	const batch, rounds = 256, 20
	if e.h.Allocs <= 0 {
		e.Logf("the harness sets no budget")
		return
	}
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	body := make([]byte, 1<<10)
	ms := make([]stagebus.Message, batch)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: topic, Body: body}
	}
	dst := make([]stagebus.Delivery, batch)
	ts := make([]stagebus.Token, 0, batch)
	ctx := e.ctx()
	round := func() {
		if err := stagebus.Send(ctx, p, ms...); err != nil {
			e.Fatalf("send: %v", err)
		}
		for n := 0; n < batch; {
			k, err := c.Receive(ctx, dst)
			if err != nil {
				e.Fatalf("receive: %v", err)
			}
			ts = ts[:0]
			for _, d := range dst[:k] {
				ts = append(ts, d.Token)
			}
			if err := c.Settle(ctx, stagebus.Done, ts...); err != nil {
				e.Fatalf("settle: %v", err)
			}
			n += k
		}
	}
	round()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / (batch * rounds)
	what := fmt.Sprintf("%.2f allocations per message, the budget is %.2f", per, e.h.Allocs)
	if per > e.h.Allocs {
		e.Error(what)
		return
	}
	e.Log(what)
}
