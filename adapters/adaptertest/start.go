package adaptertest

import (
	"fmt"
	"time"

	"github.com/stagebus/stagebus"
)

func canReplay(c stagebus.Capabilities) bool { return c.Replay }

var startCases = []Case{
	{Name: "start/history", Proves: "Capabilities.History is true: a new group sees what was sent before it",
		Needs: func(c stagebus.Capabilities) bool { return c.History }, run: historyCase, refused: noHistoryCase},
	{Name: "start/kinds", Proves: "a new group starts at the earliest message, the next one, a time or an offset; one with a position goes on from there",
		Needs: canReplay, run: startKindsCase, refused: noReplayCase},
	{Name: "start/assigned", Proves: "an Assigned consumer reads its partitions only, commits nothing, and starts again where it is told",
		Needs: func(c stagebus.Capabilities) bool { return c.Partitions }, run: assignedCase, refused: noAssignedCase},
}

func historyCase(e *env) {
	fresh, unheard := e.group("new"), e.group("unheard-of")
	topic := e.topic(fresh)
	p := e.producer()
	e.sendTexts(p, topic, "a", "b")
	for _, g := range []string{"", fresh, unheard} {
		if got := e.take(e.consumer(topic, g), 2); got[0] != "a" || got[1] != "b" {
			e.Errorf("group %q got %q", g, got)
		}
	}
}

// noHistoryCase: a group starts empty unless it was declared with the topic.
func noHistoryCase(e *env) {
	declared, unheard := e.group("declared"), e.group("unheard-of")
	topic := e.topic(declared)
	p := e.producer()
	e.sendTexts(p, topic, "a", "b")
	for _, g := range []string{"", declared} {
		if got := e.take(e.consumer(topic, g), 2); got[0] != "a" || got[1] != "b" {
			e.Errorf("group %q, declared before, got %q", g, got)
		}
	}
	e.nothingBefore(p, e.consumer(topic, unheard), topic, "a new group of a broker without history")
}

func startKindsCase(e *env) {
	topic := e.topic()
	p := e.producer()
	early := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for i := range 4 {
		at := early.Add(time.Duration(i) * 10 * time.Second)
		e.send(p, stagebus.Message{Topic: topic, Time: at, Body: []byte(fmt.Sprint("m", i))})
	}
	open := func(group string, s stagebus.Start) stagebus.Consumer {
		return e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: e.group(group), Start: s})
	}
	for _, k := range []struct {
		name  string
		start stagebus.Start
		want  []string
	}{
		{"default", stagebus.Start{}, []string{"m0", "m1", "m2", "m3"}},
		{"earliest", stagebus.Start{Kind: stagebus.StartEarliest}, []string{"m0", "m1", "m2", "m3"}},
		{"latest", stagebus.Start{Kind: stagebus.StartLatest}, nil},
		{"time", stagebus.Start{Kind: stagebus.StartTime, Time: early.Add(15 * time.Second)}, []string{"m2", "m3"}},
		{"exact-time", stagebus.Start{Kind: stagebus.StartTime, Time: early.Add(10 * time.Second)}, []string{"m1", "m2", "m3"}},
		{"future", stagebus.Start{Kind: stagebus.StartTime, Time: time.Now().Add(time.Hour)}, nil},
		{"offset", stagebus.Start{Kind: stagebus.StartOffset, Offset: 3}, []string{"m3"}},
	} {
		c := open("start-"+k.name, k.start)
		e.sendTexts(p, topic, "end of "+k.name)
		ds := e.receive(c, len(k.want)+1)
		// Markers of the kinds before are history for this one: it is enough to see where it begins.
		for i, w := range append(k.want, map[bool]string{true: "end of default", false: "end of " + k.name}[len(k.want) > 0]) {
			if string(ds[i].Body) != w {
				e.Errorf("start %s: delivery %d is %s, want %q", k.name, i, describe(&ds[i]), w)
			}
		}
		e.settle(c, stagebus.Done, ds[0])
		e.closeIt("consumer", c.Close)
		// The group has a position now: another start doesn't move it.
		c = open("start-"+k.name, stagebus.Start{Kind: stagebus.StartLatest})
		if len(ds) > 1 {
			if d := e.receive(c, 1)[0]; string(d.Body) != string(ds[1].Body) {
				e.Errorf("start %s, opened again after one was settled: %s, want %s", k.name, describe(&d), clip(ds[1].Body))
			}
		}
		e.closeIt("consumer", c.Close)
	}
	// A start at the end is a position as well: what comes while nobody listens is not lost.
	e.closeIt("consumer", open("away", stagebus.Start{Kind: stagebus.StartLatest}).Close)
	e.sendTexts(p, topic, "while away")
	if d := e.receive(open("away", stagebus.Start{Kind: stagebus.StartLatest}), 1)[0]; string(d.Body) != "while away" {
		e.Errorf("a group that had started at the end, opened again: %s", describe(&d))
	}
}

func noReplayCase(e *env) {
	g := e.group("g")
	topic := e.topic()
	for what, s := range map[string]stagebus.Start{
		"earliest": {Kind: stagebus.StartEarliest}, "a time": {Kind: stagebus.StartTime, Time: time.Now()}, "an offset": {Kind: stagebus.StartOffset},
	} {
		_, err := e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: g, Start: s})
		e.want(err, "start at "+what+" on a broker without replay", stagebus.ErrUnsupported)
	}
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: g, Start: stagebus.Start{Kind: stagebus.StartLatest}})
	e.nothingBefore(e.producer(), c, topic, "start at the latest message")
}

func assignedCase(e *env) {
	const parts = 3
	topic := e.topicOf(parts)
	p := e.producer()
	for i := range 4 * parts {
		e.send(p, stagebus.Message{Topic: topic, Partition: stagebus.At(int32(i % parts)), Body: []byte(fmt.Sprintf("%d/%d", i%parts, i/parts))})
	}
	o := stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Assigned, Partitions: []int32{1}}
	for range 2 { // settling commits nothing: the second is as the first
		c := e.consumerOf(e.b, o)
		for i, b := range e.take(c, 4) {
			if b != fmt.Sprint("1/", i) {
				e.Errorf("the consumer of partition 1 got %q, want %q", b, fmt.Sprint("1/", i))
			}
		}
		e.flush(c)
		e.closeIt("consumer", c.Close)
	}
	o.Partitions, o.Start = nil, stagebus.Start{Kind: stagebus.StartOffset, Offset: 2}
	c := e.consumerOf(e.b, o)
	got := e.take(c, 2*parts)
	if !equalSets(got, []string{"0/2", "0/3", "1/2", "1/3", "2/2", "2/3"}) {
		e.Errorf("from offset 2 in all partitions: %q", got)
	}
	o.Start = stagebus.Start{Kind: stagebus.StartLatest}
	c = e.consumerOf(e.b, o)
	e.send(p, stagebus.Message{Topic: topic, Partition: stagebus.At(2), Body: []byte("later")})
	if got := e.take(c, 1); got[0] != "later" {
		e.Errorf("from the latest: %q", got)
	}
	o.Partitions = []int32{parts}
	_, err := e.tryConsumer(e.b, o)
	e.want(err, "a partition that doesn't exist", stagebus.ErrNotFound)
}

func noAssignedCase(e *env) {
	_, err := e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{e.topic()}, Mode: stagebus.Assigned})
	e.want(err, "mode Assigned on a broker without partitions", stagebus.ErrUnsupported)
}
