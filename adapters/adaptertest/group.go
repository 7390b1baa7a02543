package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/stagebus/stagebus"
)

var groupCases = []Case{
	{Name: "group/share", Proves: "members of one group divide the messages: each gets some, none comes to two", run: shareCase},
	{Name: "group/each", Proves: "each group gets all, at its own pace", run: eachGroupCase},
	{Name: "group/default", Proves: "an empty group name is the group \"default\"", run: defaultGroupCase},
	{Name: "group/leave", Proves: "when a member leaves, the others get what it had and what comes", run: leaveCase},
	{Name: "group/join", Proves: "when a member joins, lanes that move drain first: what is settled in time counts and doesn't come twice", run: joinCase},
	{Name: "group/key-order", Proves: "with KeyOrder a key keeps its order across the members of a group",
		Needs: func(c stagebus.Capabilities) bool { return c.KeyOrder }, run: keyOrderCase, refused: noKeyOrderCase},
}

// arrival is a delivery with the member that got it.
type arrival struct {
	member int
	stagebus.Delivery
}

// members lets consumers receive, each in its goroutine, and settle with Done after see has returned. see is called one
// at a time. It returns a function that stops and waits for them.
func (e *env) members(cs []stagebus.Consumer, see func(arrival)) (stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*e.h.Patience)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, c := range cs {
		wg.Go(func() {
			dst := make([]stagebus.Delivery, 16)
			for {
				n, err := c.Receive(ctx, dst)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						e.Errorf("member %d: %v", i, err)
					}
					return
				}
				mu.Lock()
				for _, d := range dst[:n] {
					see(arrival{i, d})
				}
				mu.Unlock()
				// A lane that has been moved meanwhile is counted by what comes twice, not here.
				if err := c.Settle(ctx, stagebus.Done, tokens(dst[:n])...); err != nil && !errors.Is(err, stagebus.ErrStale) {
					e.Errorf("member %d settles: %v", i, err)
				}
			}
		})
	}
	stop = func() { cancel(); wg.Wait() }
	e.Cleanup(stop)
	return stop
}

func shareCase(e *env) {
	g := e.group("g")
	topic := e.topicOf(4, g)
	p := e.producer()
	cs := []stagebus.Consumer{e.consumer(topic, g), e.consumer(topic, g)}
	var mu sync.Mutex
	got := map[string]int{}
	by := make([]int, len(cs))
	more := make(chan struct{}, 1)
	stop := e.members(cs, func(a arrival) {
		mu.Lock()
		defer mu.Unlock()
		got[string(a.Body)]++
		by[a.member]++
		select {
		case more <- struct{}{}:
		default:
		}
	})
	// Messages flow until both have some: members may need a while to agree on who gets what.
	sent := 0
	complete := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == sent
	}
	shared := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return by[0] > 0 && by[1] > 0
	}
	ctx := e.ctx()
	for !shared() || sent < 200 {
		var ms []stagebus.Message
		for range 20 {
			ms = append(ms, stagebus.Message{Topic: topic, Key: []byte(fmt.Sprint(sent % 50)), Body: []byte(fmt.Sprint("m", sent))})
			sent++
		}
		e.send(p, ms...)
		for !complete() {
			select {
			case <-more:
			case <-ctx.Done():
				e.Fatalf("the group got not all of %d messages", sent)
			}
		}
		if ctx.Err() != nil {
			e.Fatalf("%d messages were sent and one member of the group got all of them", sent)
		}
	}
	stop()
	for i, c := range cs {
		e.closeIt(fmt.Sprint("member ", i), c.Close)
	}
	last := e.consumer(topic, g)
	for _, d := range e.sweep(p, last, topic, 4) {
		got[string(d.Body)]++
	}
	for body, n := range got {
		if n != 1 {
			e.Errorf("%s came %d times to the members of one group", body, n)
		}
	}
}

// sweep sends a marker to each of n partitions, receives until all have come, and returns what else came. Nothing that was
// sent before is left then.
func (e *env) sweep(p stagebus.Producer, c stagebus.Consumer, topic string, n int) (rest []stagebus.Delivery) {
	e.Helper()
	if !e.caps.Partitions {
		n = 1
	}
	markers := map[string]bool{}
	for i := range n {
		m := stagebus.Message{Topic: topic, Body: []byte(fmt.Sprintf("marker %d", e.markers.Add(1)))}
		if e.caps.Partitions {
			m.Partition = stagebus.At(int32(i))
		}
		markers[string(m.Body)] = true
		e.send(p, m)
	}
	for len(markers) > 0 {
		d := e.receiveRaw(c, 1)[0]
		e.settle(c, stagebus.Done, d)
		if markers[string(d.Body)] {
			delete(markers, string(d.Body))
			continue
		}
		rest = append(rest, d)
	}
	return rest
}

func eachGroupCase(e *env) {
	ga, gb := e.group("a"), e.group("b")
	topic := e.topic(ga, gb)
	p := e.producer()
	a, b := e.consumer(topic, ga), e.consumer(topic, gb)
	want := numbered("m", 50)
	e.sendTexts(p, topic, want...)
	if got := e.take(a, 50); !equalSets(got, want) {
		e.Errorf("group a got %q", got)
	}
	e.flush(a)
	e.nothingBefore(p, a, topic, "group a has all")
	if got := e.take(b, 50); !equalSets(got, want) { // the other's settlements are not its own
		e.Errorf("group b got %q", got)
	}
	e.take(b, 1) // the marker
	e.nothingBefore(p, b, topic, "group b has all")
}

func defaultGroupCase(e *env) {
	topic := e.topic()
	p := e.producer()
	c := e.consumer(topic, "")
	e.sendTexts(p, topic, "first", "second")
	ds := e.receive(c, 2)
	if g := ds[0].Token.Lane.Info().Group; g != stagebus.DefaultGroup {
		e.Errorf("the lane's group is %q", g)
	}
	e.settle(c, stagebus.Done, ds[0])
	e.closeIt("consumer", c.Close)
	c = e.consumer(topic, stagebus.DefaultGroup)
	if got := e.take(c, 1); got[0] != "second" {
		e.Errorf("the group by its name got %q", got)
	}
	e.nothingBefore(p, c, topic, "the group has all")
}

func leaveCase(e *env) {
	g := e.group("g")
	topic := e.topicOf(4, g)
	p := e.producer()
	a, b := e.consumer(topic, g), e.consumer(topic, g)
	var ms []stagebus.Message
	for i := range 40 {
		ms = append(ms, stagebus.Message{Topic: topic, Key: []byte(fmt.Sprint(i)), Body: []byte(fmt.Sprint("m", i))})
	}
	e.send(p, ms...)
	e.closeIt("a member that received nothing", a.Close)
	got := e.take(b, len(ms))
	for _, d := range e.sweep(p, b, topic, 4) {
		got = append(got, string(d.Body))
	}
	if want := numbered("m", len(ms)); !equalSets(got, want) {
		e.Errorf("the member that is left got %q", got)
	}
}

func joinCase(e *env) {
	g := e.group("g")
	const parts, n = 4, 12
	topic := e.topicOf(parts, g)
	p := e.producer()
	// Time enough for the suite to settle what it holds; the lanes are released as soon as it has.
	o := stagebus.ConsumerOptions{Topics: []string{topic}, Group: g, Drain: e.h.Patience}
	a := e.consumerOf(e.b, o)
	for i := range n {
		m := stagebus.Message{Topic: topic, Body: []byte(fmt.Sprint("m", i))}
		if e.caps.Partitions {
			m.Partition = stagebus.At(int32(i % parts))
		}
		e.send(p, m)
	}
	ds := e.receive(a, n)
	opened := make(chan stagebus.Consumer, 1)
	go func() {
		b, err := e.tryConsumer(e.b, o)
		if err != nil {
			e.Errorf("a second member: %v", err)
		}
		opened <- b
	}()
	if e.h.Revokes {
		drains := make(chan struct{}, n)
		ended := make(chan struct{})
		defer close(ended)
		for _, d := range ds {
			go func() {
				select {
				case <-d.Token.Lane.Draining():
					drains <- struct{}{}
				case <-ended:
				}
			}()
		}
		e.await(drains, "a lane drains when a member joins")
	}
	for i := range ds {
		if err := a.Settle(e.ctx(), stagebus.Done, ds[i].Token); err != nil {
			e.Fatalf("settle %s while a member joins: %v", describe(&ds[i]), err)
		}
	}
	b := <-opened
	if b == nil {
		return
	}
	e.Cleanup(func() { e.closeIt("consumer", b.Close) })
	e.closeIt("the first member", a.Close)
	for _, d := range e.sweep(p, b, topic, parts) {
		e.Errorf("%s was settled by the first member while the second joined", describe(&d))
	}
}

func keyOrderCase(e *env) {
	g := e.group("g")
	const keys, each = 8, 40
	topic := e.topicOf(4) // the group's place is made by its consumers, since it may have to be made for that
	p := e.producer()
	o := stagebus.ConsumerOptions{Topics: []string{topic}, Group: g, KeyOrder: true}
	cs := []stagebus.Consumer{e.consumerOf(e.b, o), e.consumerOf(e.b, o), e.consumerOf(e.b, o)}
	t := newTally(1)
	stop := e.members(cs, func(a arrival) { t.receive(0, &a.Delivery) })
	for seq := range each {
		var ms []stagebus.Message
		for k := range keys {
			ms = append(ms, t.message(topic, fmt.Sprint("key", k), seq))
		}
		e.send(p, ms...)
	}
	e.await(t.complete(), "the members get all messages")
	stop()
	t.report(e)
}

func noKeyOrderCase(e *env) {
	_, err := e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{e.topic()}, KeyOrder: true})
	e.want(err, "KeyOrder on a broker without", stagebus.ErrUnsupported)
}
