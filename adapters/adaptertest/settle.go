package adaptertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/stagebus/stagebus"
)

var settleCases = []Case{
	{Name: "settle/done", Proves: "what was settled with Done, in any order and from any goroutine, doesn't come again", run: doneCase},
	{Name: "settle/flush", Proves: "after Flush the broker knows: the next consumer of the group gets nothing of what was settled", run: flushCase},
	{Name: "settle/partly", Proves: "what was not settled comes again, whatever was settled around it", run: partlyCase},
	{Name: "settle/release", Proves: "a released message comes again at once, marked, with the same attempt", run: releaseCase},
	{Name: "settle/twice", Proves: "a token settled before is ErrStale at its place, and the others of the call are settled", run: twiceCase},
	{Name: "settle/race", Proves: "of many that settle one token at once, one succeeds", run: settleRaceCase},
	{Name: "settle/foreign", Proves: "tokens of other consumers and made-up ones are ErrStale and settle nothing", run: foreignCase},
	{Name: "settle/closed", Proves: "a token of a closed consumer is ErrStale", run: settleClosedCase},
}

func doneCase(e *env) {
	const n = 500
	topic := e.topic()
	p := e.producer()
	e.sendTexts(p, topic, numbered("m", n)...)
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Prefetch: n})
	ts := tokens(e.receive(c, n))
	rand.Shuffle(n, func(i, j int) { ts[i], ts[j] = ts[j], ts[i] })
	ctx := e.ctx()
	var wg sync.WaitGroup
	for part := range slices.Chunk(ts, 60) {
		wg.Go(func() {
			for few := range slices.Chunk(part, 7) {
				if err := c.Settle(ctx, stagebus.Done, few...); err != nil {
					e.Errorf("settle: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if err := c.Settle(ctx, stagebus.Done); err != nil {
		e.Errorf("settle no token: %v", err)
	}
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "all were settled before Close")
}

func flushCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p := e.producer()
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: g})
	for round := range 3 {
		e.sendTexts(p, topic, numbered(fmt.Sprint("round ", round, " "), 20)...)
		e.take(c, 20)
		e.flush(c)
		info, err := e.b.Admin().Describe(e.ctx(), topic)
		if err != nil {
			e.Fatalf("describe: %v", err)
		}
		i := slices.IndexFunc(info.Groups, func(i stagebus.GroupInfo) bool { return i.Name == g })
		if i < 0 {
			e.Fatalf("group g is consuming and not among %+v", info.Groups)
		}
		if n := info.Groups[i].Depth; n != 0 {
			e.Fatalf("all was settled and flushed: the group's depth is %d", n)
		}
	}
	e.flush(c) // of nothing
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, g), topic, "all were settled before Flush")
}

func partlyCase(e *env) {
	const n = 30
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, numbered("m", n)...)
	ds := e.receive(c, n)
	open := map[string]bool{}
	first := n // of those that stay open
	for i, d := range ds {
		if i%3 == 1 {
			open[string(d.Body)] = true
			first = min(first, i)
			continue
		}
		e.settle(c, stagebus.Done, d)
	}
	e.closeIt("consumer", c.Close)
	const marker = "the end"
	e.sendTexts(p, topic, marker)
	c = e.consumer(topic, "")
	for {
		d := e.receive(c, 1)[0]
		e.settle(c, stagebus.Done, d)
		body := string(d.Body)
		if body == marker {
			break
		}
		// A broker that knows a prefix only repeats what follows the first open one. What is before it must not come.
		if i := slices.IndexFunc(ds, func(x stagebus.Delivery) bool { return string(x.Body) == body }); i < first {
			e.Errorf("%s was settled, and all before it as well", describe(&d))
		}
		delete(open, body)
	}
	if len(open) > 0 {
		e.Errorf("%d messages were not settled and don't come again: %v", len(open), open)
	}
}

func releaseCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "released", "settled")
	ds := e.receive(c, 2)
	for range 5 {
		e.settle(c, stagebus.Release, ds[0])
		d := e.receive(c, 1)[0]
		switch {
		case string(d.Body) != "released":
			e.Fatalf("after a Release: %s", describe(&d))
		case !d.Redelivered:
			e.Errorf("%s isn't marked as redelivered", describe(&d))
		case d.Attempt != ds[0].Attempt:
			e.Errorf("%s: a Release counted as an attempt, it was %d", describe(&d), ds[0].Attempt)
		case d.Token == ds[0].Token:
			e.Errorf("the token of a released delivery is used again")
		case d.Position != ds[0].Position:
			e.Errorf("%s: it was at %v", describe(&d), ds[0].Position)
		}
		if s := diff(&ds[0].Message, &d.Message); s != "" {
			e.Errorf("a released message changed: %s", s)
		}
		e.wantBatch(c.Settle(e.ctx(), stagebus.Done, ds[0].Token), "settle with the token of before the Release", stagebus.ErrStale)
		ds[0] = d
	}
	e.settle(c, stagebus.Done, ds...)
	e.nothingBefore(p, c, topic, "all are settled")
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "all are settled")
}

func twiceCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, numbered("m", 6)...)
	ds := e.receive(c, 6)
	ts := tokens(ds)
	e.settle(c, stagebus.Done, ds[1])
	stale := stagebus.ErrStale
	for _, v := range []stagebus.Verdict{stagebus.Done, stagebus.Release, stagebus.Retry(0), stagebus.Reject("again")} {
		e.wantBatch(c.Settle(e.ctx(), v, ts[1]), verdict(v)+" of a settled token", stale)
	}
	e.wantBatch(c.Settle(e.ctx(), stagebus.Done, ts[0], ts[1], ts[2]), "a settled token among others", nil, stale, nil)
	e.wantBatch(c.Settle(e.ctx(), stagebus.Done, ts[3], ts[3]), "one token twice in a call", nil, stale)
	e.wantBatch(c.Settle(e.ctx(), stagebus.Reject("r"), ts[1], ts[4], ts[2]), "a rejected token among settled ones", stale, nil, stale)
	e.wantBatch(c.Settle(e.ctx(), stagebus.Done, ts...), "all of them", stale, stale, stale, stale, stale, nil)
	e.nothingBefore(p, c, topic, "all are settled, some twice")
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "all are settled, some twice")
	dead := stagebus.DeadLetterTopic(topic, "")
	c = e.consumer(dead, "")
	if got := e.take(c, 1); got[0] != "m4" {
		e.Errorf("rejected was m4, the dead letter is %q", got)
	}
	e.nothingBefore(p, c, dead, "a stale token rejects nothing")
}

func settleRaceCase(e *env) {
	const n, settlers = 20, 8
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, numbered("m", n)...)
	ctx := e.ctx()
	for _, d := range e.receive(c, n) {
		var wg sync.WaitGroup
		var done atomic.Int32
		start := make(chan struct{})
		for range settlers {
			wg.Go(func() {
				<-start
				if c.Settle(ctx, stagebus.Done, d.Token) == nil {
					done.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
		if k := done.Load(); k != 1 {
			e.Fatalf("%d of %d that settled one token at once succeeded", k, settlers)
		}
	}
	e.nothingBefore(p, c, topic, "all are settled")
}

// madeUp is a lane that no adapter has made.
type madeUp struct{}

func (*madeUp) Info() stagebus.LaneInfo   { return stagebus.LaneInfo{} }
func (*madeUp) Draining() <-chan struct{} { return nil }
func (*madeUp) Context() context.Context  { return context.Background() }

func foreignCase(e *env) {
	ga, gb := e.group("a"), e.group("b")
	topic := e.topic(ga, gb)
	p := e.producer()
	a, b := e.consumer(topic, ga), e.consumer(topic, gb)
	e.sendTexts(p, topic, "m0", "m1")
	das, dbs := e.receive(a, 2), e.receive(b, 2)
	stale := stagebus.ErrStale
	for _, v := range []stagebus.Verdict{stagebus.Done, stagebus.Release, stagebus.Retry(0), stagebus.Reject("not mine")} {
		e.wantBatch(a.Settle(e.ctx(), v, dbs[0].Token), verdict(v)+" of another consumer's token", stale)
		e.wantBatch(a.Settle(e.ctx(), v, stagebus.Token{}), verdict(v)+" of the zero token", stale)
		e.wantBatch(a.Settle(e.ctx(), v, stagebus.Token{Lane: &madeUp{}, Seq: das[0].Token.Seq}), verdict(v)+" of a made-up lane's token", stale)
		for _, seq := range []int64{-1, das[1].Token.Seq + 1<<40} {
			e.wantBatch(a.Settle(e.ctx(), v, stagebus.Token{Lane: das[0].Token.Lane, Seq: seq}), verdict(v)+" of a made-up number", stale)
		}
	}
	e.wantBatch(a.Settle(e.ctx(), stagebus.Done, das[0].Token, dbs[1].Token, das[1].Token), "another consumer's token among own ones", nil, stale, nil)
	// The other consumer's are as open as before.
	e.settle(b, stagebus.Done, dbs[0])
	e.closeIt("consumer b", b.Close)
	c := e.consumer(topic, gb)
	if got := e.take(c, 1); got[0] != "m1" {
		e.Errorf("m1 was not settled by its consumer, and %q comes again", got)
	}
	e.nothingBefore(p, a, topic, "all of a's are settled")
	e.take(c, 1) // its copy of the marker
	e.nothingBefore(p, c, topic, "all of b's are settled")
}

func settleClosedCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "m0", "m1")
	ds := e.receive(c, 2)
	e.settle(c, stagebus.Done, ds[0])
	e.closeIt("consumer", c.Close)
	stale := stagebus.ErrStale
	for _, v := range []stagebus.Verdict{stagebus.Done, stagebus.Release, stagebus.Retry(0), stagebus.Reject("late")} {
		e.wantBatch(c.Settle(e.ctx(), v, tokens(ds)...), verdict(v)+" after Close", stale, stale)
	}
	c2 := e.consumer(topic, "")
	d := e.receive(c2, 1)[0]
	if string(d.Body) != "m1" {
		e.Errorf("after a settlement that came too late: %s", describe(&d))
	}
	e.wantBatch(c2.Settle(e.ctx(), stagebus.Done, ds[1].Token), "the old token at the next consumer", stale)
	e.settle(c2, stagebus.Done, d)
	e.nothingBefore(p, c2, topic, "all are settled")
}
