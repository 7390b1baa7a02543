package adaptertest

import (
	"errors"
	"slices"

	"github.com/stagebus/stagebus"
)

var adminCases = []Case{
	{Name: "admin/declare", Proves: "a declared topic is described and listed, and declaring it again changes nothing", run: declareCase},
	{Name: "admin/delete", Proves: "a deleted topic is gone: ErrNotFound, ErrNoRoute", run: deleteCase},
	{Name: "admin/depth", Proves: "a group's depth is what it has not settled", run: depthCase},
	{Name: "admin/purge", Proves: "Purge drops what one group has not settled, and nothing of another's", run: purgeCase},
	{Name: "admin/ping", Proves: "Ping and the capabilities answer, the capabilities as expected", run: pingCase},
}

func declareCase(e *env) {
	g, h := e.group("g"), e.group("h")
	const parts = 3
	topic := e.topicOf(parts, g)
	p := e.producer()
	e.sendTexts(p, topic, "m0", "m1")
	e.declare(e.spec(topic, parts, g))
	e.declare(e.spec(topic, parts, g, h))
	info, err := e.b.Admin().Describe(e.ctx(), topic)
	if err != nil {
		e.Fatalf("describe: %v", err)
	}
	if info.Name != topic || info.Kind == "" {
		e.Errorf("described as %+v", info)
	}
	if e.caps.Partitions {
		next := int64(0)
		if len(info.Partitions) != parts {
			e.Fatalf("%d partitions, want %d", len(info.Partitions), parts)
		}
		for i, part := range info.Partitions {
			next += part.Next - part.First
			if part.ID != int32(i) {
				e.Errorf("partition %d has the number %d", i, part.ID)
			}
		}
		if next != 2 {
			e.Errorf("the partitions hold %d messages, want 2: %+v", next, info.Partitions)
		}
		e.want(e.b.Admin().Declare(e.ctx(), e.spec(topic, parts+1)), "declare it with another number of partitions", stagebus.ErrConflict)
	}
	all, err := e.b.Admin().List(e.ctx())
	switch {
	case errors.Is(err, stagebus.ErrUnsupported): // a broker whose protocol has no list
	case err != nil:
		e.Errorf("list: %v", err)
	case !slices.ContainsFunc(all, func(i stagebus.TopicInfo) bool { return i.Name == topic }):
		e.Errorf("the topic is not among the %d that are listed", len(all))
	}
	// Declaring again has dropped nothing.
	e.take(e.consumer(topic, g), 2)
	// A name that is given by somebody else's broker can be asked for as well.
	_, err = e.b.Admin().Describe(e.ctx(), e.unused())
	e.want(err, "describe a topic that doesn't exist", stagebus.ErrNotFound)
}

func deleteCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p := e.producer()
	e.sendTexts(p, topic, "m")
	if err := e.b.Admin().Delete(e.ctx(), topic); err != nil {
		e.Fatalf("delete: %v", err)
	}
	e.eventually("the deleted topic is not found", func() bool {
		_, err := e.b.Admin().Describe(e.ctx(), topic)
		return errors.Is(err, stagebus.ErrNotFound)
	})
	e.want(e.b.Admin().Delete(e.ctx(), topic), "delete it again", stagebus.ErrNotFound)
	e.want(e.b.Admin().Purge(e.ctx(), topic, ""), "purge it", stagebus.ErrNotFound)
	_, err := e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{topic}})
	e.want(err, "consume it", stagebus.ErrNotFound)
	// A new producer doesn't remember the topic; one that does may need a while.
	e.want(stagebus.Send(e.ctx(), e.producer(), texts(topic, "late")...), "send to it", stagebus.ErrNoRoute)
	// The name can be used again, and starts empty.
	e.declare(e.spec(topic, 1, g))
	p = e.producer()
	e.nothingBefore(p, e.consumer(topic, g), topic, "a topic that was declared anew")
}

func (e *env) depth(topic, group string) (int64, bool) {
	e.Helper()
	info, err := e.b.Admin().Describe(e.ctx(), topic)
	if err != nil {
		e.Fatalf("describe: %v", err)
	}
	for _, g := range info.Groups {
		if g.Name == group {
			return g.Depth, true
		}
	}
	return 0, false
}

func depthCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p := e.producer()
	c := e.consumer(topic, g)
	e.sendTexts(p, topic, numbered("m", 5)...)
	ds := e.receive(c, 5)
	e.settle(c, stagebus.Done, ds[:2]...)
	e.closeIt("consumer", c.Close)
	e.eventually("two of five are settled: the depth is 3", func() bool {
		n, ok := e.depth(topic, g)
		return ok && n == 3
	})
	c = e.consumer(topic, g)
	e.take(c, 3)
	e.flush(c)
	e.eventually("all are settled: the depth is 0", func() bool {
		n, ok := e.depth(topic, g)
		return ok && n == 0
	})
}

func purgeCase(e *env) {
	g, h := e.group("g"), e.group("h")
	topic := e.topic(g, h)
	p := e.producer()
	for _, group := range []string{g, h} { // the groups have been there
		e.closeIt("consumer", e.consumer(topic, group).Close)
	}
	e.sendTexts(p, topic, numbered("m", 5)...)
	if err := e.b.Admin().Purge(e.ctx(), topic, g); err != nil {
		e.Fatalf("purge: %v", err)
	}
	c := e.consumer(topic, g)
	e.nothingBefore(p, c, topic, "the group was purged")
	other := e.consumer(topic, h)
	e.take(other, 6)
	e.nothingBefore(p, other, topic, "the other group has all")
	e.want(e.b.Admin().Purge(e.ctx(), e.unused(), ""), "purge a topic that doesn't exist", stagebus.ErrNotFound)
}

func pingCase(e *env) {
	if err := e.b.Ping(e.ctx()); err != nil {
		e.Errorf("ping: %v", err)
	}
	// The connection of a producer knows what the broker can do.
	e.producer()
	got := e.b.Capabilities()
	if e.h.Expect != nil && got != *e.h.Expect {
		e.Errorf("capabilities %+v, expected %+v", got, *e.h.Expect)
	}
	if got.Replay && !got.History {
		e.Errorf("a broker that can replay has history: %+v", got)
	}
}
