package adaptertest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

var rejectCases = []Case{
	{Name: "reject/dead-letter", Proves: "a rejected message is in the dead-letter topic, once, and doesn't come again", run: deadLetterCase},
	{Name: "reject/origin", Proves: "a dead letter says why, from where, for which group and when", run: originCase},
	{Name: "reject/content", Proves: "a dead letter has the body, key, attributes and headers of the message, exactly", run: deadContentCase},
	{Name: "reject/reason", Proves: "any reason arrives, cut at 1 KiB", run: reasonCase},
	{Name: "reject/own-group", Proves: "a Reject concerns its group only, and its dead letters are its own", run: rejectGroupCase},
	{Name: "reject/again", Proves: "a dead letter can be rejected in turn", run: rejectAgainCase},
	{Name: "reject/kept", Proves: "dead letters outlive their topic", run: deadKeptCase},
}

func deadLetterCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "good", "bad", "fine")
	ds := e.receive(c, 3)
	e.settle(c, stagebus.Reject("no good"), ds[1])
	e.settle(c, stagebus.Done, ds[0], ds[2])
	e.nothingBefore(p, c, topic, "one is rejected, the others are done")
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "one is rejected, the others are done")

	dead := stagebus.DeadLetterTopic(topic, "")
	c = e.consumer(dead, "")
	d := e.receive(c, 1)[0]
	if string(d.Body) != "bad" || d.Topic != dead {
		e.Errorf("the dead letter is %s", describe(&d))
	}
	e.settle(c, stagebus.Done, d)
	e.nothingBefore(p, c, dead, "one was rejected")
}

func originCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p, c := e.producer(), e.consumer(topic, g)
	e.sendTexts(p, topic, "before", "bad", "tried again")
	e.take(c, 1)
	ds := e.receive(c, 2)
	begin := time.Now()
	e.settle(c, stagebus.Reject("reason: 42"), ds[0])
	end := time.Now()
	e.settle(c, stagebus.Retry(0), ds[1])
	e.settle(c, stagebus.Reject("reason: 43"), e.receive(c, 1)...)

	dead := e.consumer(stagebus.DeadLetterTopic(topic, g), "")
	for _, d := range e.receive(dead, 2) { // in any order: the dead-letter topic may have partitions
		e.settle(dead, stagebus.Done, d)
		i := slices.Index([]string{"bad", "tried again"}, string(d.Body))
		for key, want := range map[string]string{
			stagebus.HeaderDeadReason: fmt.Sprint("reason: ", 42+i), stagebus.HeaderDeadTopic: topic, stagebus.HeaderDeadGroup: g,
			stagebus.HeaderDeadAttempt: fmt.Sprint(1 + i),
		} {
			if got, ok := d.Headers.Get(key); !ok || got != want {
				e.Errorf("dead letter %d: %s is %q (there: %v), want %q", i, key, got, ok, want)
			}
		}
		for _, h := range d.Headers {
			if !strings.HasPrefix(h.Key, "stagebus-dead-") {
				e.Errorf("dead letter %d has the header %q, the message had none", i, h.Key)
			}
		}
		if i > 0 {
			continue // a retried message may have come from the place where it waited
		}
		for key, want := range map[string]int64{
			stagebus.HeaderDeadPartition: int64(ds[0].Position.Partition), stagebus.HeaderDeadOffset: ds[0].Position.Offset,
		} {
			v, _ := d.Headers.Get(key)
			if n, err := strconv.ParseInt(v, 10, 64); err != nil || n != want {
				e.Errorf("%s is %q, the message came from %v", key, v, ds[0].Position)
			}
		}
		v, _ := d.Headers.Get(stagebus.HeaderDeadTime)
		at, err := time.Parse(time.RFC3339, v) // takes a fraction as well
		if err != nil || at.Before(begin.Truncate(time.Second)) || at.After(end.Add(time.Second)) {
			e.Errorf("%s is %q (%v), it was rejected at %v", stagebus.HeaderDeadTime, v, err, begin.UTC())
		}
	}
}

// own returns a dead letter as the message that it was before, for comparison.
func own(d *stagebus.Delivery, topic string) *stagebus.Message {
	m := d.Message
	m.Topic = topic
	m.Headers = nil
	for _, h := range d.Headers {
		if !strings.HasPrefix(h.Key, "stagebus-dead-") {
			m.Headers = append(m.Headers, h)
		}
	}
	return &m
}

func deadContentCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	ms := []stagebus.Message{
		eventful(topic), {Topic: topic, Body: []byte("bare")}, {Topic: topic}, {Topic: topic, Key: []byte{}, Body: []byte{}},
		{Topic: topic, Body: randomBytes(100_000)},
		{Topic: topic, Body: []byte("full"), Headers: stagebus.Headers{{Key: "large", Value: strings.Repeat("v", 60<<10)}}},
	}
	for _, m := range ms {
		e.send(p, m)
	}
	for _, d := range e.receive(c, len(ms)) {
		e.settle(c, stagebus.Reject(strings.Repeat("long ", 200)), d)
	}
	dead := e.consumer(stagebus.DeadLetterTopic(topic, ""), "")
	ds := e.receive(dead, len(ms)) // in any order: the dead-letter topic may have partitions
	e.settle(dead, stagebus.Done, ds...)
	for i := range ms {
		at := slices.IndexFunc(ds, func(d stagebus.Delivery) bool {
			return bytes.Equal(d.Body, ms[i].Body) && (d.Body == nil) == (ms[i].Body == nil)
		})
		if at < 0 {
			e.Errorf("message %d: no dead letter has its body, they are %s", i, bodies(ds))
			continue
		}
		if s := diff(&ms[i], own(&ds[at], topic)); s != "" {
			e.Errorf("message %d: its dead letter differs: %s", i, s)
		}
	}
}

func reasonCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	reasons := []string{"", "no JSON: unexpected 'x'\n\tat line 1", "причина 🚌", strings.Repeat("é", 2000), string(allBytes())}
	for i, r := range reasons {
		e.sendTexts(p, topic, fmt.Sprint(i))
		e.settle(c, stagebus.Reject(r), e.receive(c, 1)...)
	}
	dead := e.consumer(stagebus.DeadLetterTopic(topic, ""), "")
	for _, d := range e.receive(dead, len(reasons)) {
		i, err := strconv.Atoi(string(d.Body))
		if err != nil {
			e.Fatalf("the dead letter is %s", describe(&d))
		}
		want := reasons[i]
		got, ok := d.Headers.Get(stagebus.HeaderDeadReason)
		switch {
		case !ok:
			e.Errorf("reason %d is missing", i)
		case len(want) <= 1024 && got != want:
			e.Errorf("reason %d is %.100q, want %.100q", i, got, want)
		case len(want) > 1024 && (len(got) < 1000 || len(got) > 1024 || !strings.HasPrefix(want, got)):
			e.Errorf("reason %d, of %d bytes, has become one of %d: %.20q", i, len(want), len(got), got)
		}
		e.settle(dead, stagebus.Done, d)
	}
}

func rejectGroupCase(e *env) {
	ga, gb := e.group("a"), e.group("b")
	topic := e.topic(ga, gb)
	p := e.producer()
	a, b := e.consumer(topic, ga), e.consumer(topic, gb)
	e.sendTexts(p, topic, "bad for a", "bad for b")
	das, dbs := e.receive(a, 2), e.receive(b, 2)
	e.settle(a, stagebus.Reject("a"), das[0])
	e.settle(a, stagebus.Done, das[1])
	e.settle(b, stagebus.Done, dbs[0])
	e.settle(b, stagebus.Reject("b"), dbs[1])
	e.nothingBefore(p, a, topic, "all are settled in a")
	e.take(b, 1) // its copy of the marker
	e.nothingBefore(p, b, topic, "all are settled in b")
	for group, want := range map[string]string{ga: "bad for a", gb: "bad for b"} {
		dead := stagebus.DeadLetterTopic(topic, group)
		c := e.consumer(dead, "")
		if got := e.take(c, 1); got[0] != want {
			e.Errorf("the dead letter of group %s is %q, want %q", group, got, want)
		}
		e.nothingBefore(p, c, dead, "the group rejected one")
	}
}

func rejectAgainCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "bad")
	e.settle(c, stagebus.Reject("first"), e.receive(c, 1)...)
	dead := stagebus.DeadLetterTopic(topic, "")
	deader := stagebus.DeadLetterTopic(dead, "")
	e.Cleanup(func() {
		if err := e.b.Admin().Delete(e.ctx(), deader); err != nil {
			e.Errorf("delete %s: %v", deader, err)
		}
	})
	c = e.consumer(dead, "")
	e.settle(c, stagebus.Reject("second"), e.receive(c, 1)...)
	e.nothingBefore(p, c, dead, "the dead letter was rejected")
	d := e.receive(e.consumer(deader, ""), 1)[0]
	reason, _ := d.Headers.Get(stagebus.HeaderDeadReason)
	from, _ := d.Headers.Get(stagebus.HeaderDeadTopic)
	if string(d.Body) != "bad" || reason != "second" || from != dead {
		e.Errorf("%s, reason %q, from %q: want the last reason and %q first", describe(&d), reason, from, dead)
	}
}

func deadKeptCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "bad")
	e.settle(c, stagebus.Reject("r"), e.receive(c, 1)...)
	e.closeIt("consumer", c.Close)
	if err := e.b.Admin().Delete(e.ctx(), topic); err != nil {
		e.Fatalf("delete: %v", err)
	}
	if got := e.take(e.consumer(stagebus.DeadLetterTopic(topic, ""), ""), 1); got[0] != "bad" {
		e.Errorf("after its topic was deleted the dead letter is %q", got)
	}
}
