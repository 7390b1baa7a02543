package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stagebus/stagebus"
)

var sendCases = []Case{
	{Name: "send/outcomes", Proves: "done runs once, with an outcome for each message that says where it is", run: outcomesCase},
	{Name: "send/not-modified", Proves: "Submit leaves the messages alone, and the slice is the caller's again when it returns", run: notModifiedCase},
	{Name: "send/ended-context", Proves: "with a context that has ended nothing leaves and nothing hangs", run: endedContextCase},
	{Name: "send/no-route", Proves: "a topic that doesn't exist is ErrNoRoute for its messages only, and isn't created", run: noRouteCase},
	{Name: "send/create", Proves: "with Create a missing topic is declared, and its first message is there", run: createCase},
	{Name: "send/window", Proves: "a batch larger than the window goes in portions, a message larger than its bytes goes alone", run: windowCase},
	{Name: "send/backpressure", Proves: "Submit waits while a topic is full, and gives up with its context", run: backpressureCase},
	{Name: "send/partition", Proves: "a pinned message lands in its partition, equal keys in one",
		Needs: func(c stagebus.Capabilities) bool { return c.Partitions }, run: partitionCase, refused: noPartitionCase},
}

func outcomesCase(e *env) {
	topic, other := e.topic(), e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	var ms []stagebus.Message
	for i := range 40 {
		ms = append(ms, texts(topic, fmt.Sprint("m", i))...)
		if i%4 == 3 {
			ms = append(ms, texts(other, "other")...)
		}
	}
	var calls atomic.Int32
	var os []stagebus.Outcome
	ran := make(chan struct{})
	err := p.Submit(e.ctx(), ms, func(got []stagebus.Outcome) {
		if calls.Add(1) == 1 {
			os = append(os, got...)
			close(ran)
		}
	})
	if err != nil {
		e.Fatalf("submit: %v", err)
	}
	e.await(ran, "done after Submit")
	if len(os) != len(ms) {
		e.Fatalf("%d outcomes for %d messages", len(os), len(ms))
	}
	where := map[string]stagebus.Position{}
	for i, o := range os {
		if o.Err != nil {
			e.Fatalf("outcome %d: %v", i, o.Err)
		}
		if known := o.Position.Offset >= 0; known != e.caps.Offsets {
			e.Fatalf("outcome %d has offset %d, Capabilities.Offsets is %v", i, o.Position.Offset, e.caps.Offsets)
		}
		if e.caps.Offsets && o.Position.Topic != ms[i].Topic {
			e.Errorf("outcome %d is of topic %q, the message of %q", i, o.Position.Topic, ms[i].Topic)
		}
		where[string(ms[i].Body)] = o.Position
	}
	last := int64(-1)
	for _, d := range e.receive(c, 40) {
		e.settle(c, stagebus.Done, d)
		if known := d.Position.Offset >= 0; known != e.caps.Offsets {
			e.Fatalf("%s: Capabilities.Offsets is %v", describe(&d), e.caps.Offsets)
		}
		if !e.caps.Offsets {
			continue
		}
		if d.Position != where[string(d.Body)] {
			e.Errorf("%s: its outcome said %v", describe(&d), where[string(d.Body)])
		}
		if d.Position.Offset <= last {
			e.Errorf("%s: follows offset %d", describe(&d), last)
		}
		last = d.Position.Offset
	}
	if n := calls.Load(); n != 1 {
		e.Errorf("done ran %d times", n)
	}
	// An empty Submit has an outcome as well: none.
	empty := make(chan struct{})
	if err := p.Submit(e.ctx(), nil, func(os []stagebus.Outcome) { close(empty) }); err != nil {
		e.Fatalf("submit of nothing: %v", err)
	}
	e.await(empty, "done after a Submit of nothing")
}

func notModifiedCase(e *env) {
	const n = 100
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	ms := make([]stagebus.Message, n)
	want := make([]stagebus.Message, n)
	for i := range ms {
		m := stagebus.Message{Topic: topic, Key: []byte("k"), Body: []byte(fmt.Sprint("body ", i)), Headers: stagebus.Headers{{Key: "h", Value: "v"}}}
		if i%2 == 0 {
			m.ID, m.Type = fmt.Sprint(i), "t"
		}
		ms[i], want[i] = m, m.Clone()
	}
	kept := make([]stagebus.Message, n)
	ran := make(chan struct{})
	failed := make(chan error, 1)
	err := p.Submit(e.ctx(), ms, func(os []stagebus.Outcome) {
		for _, o := range os {
			if o.Err != nil {
				select {
				case failed <- o.Err:
				default:
				}
			}
		}
		clear(os) // the slice is the adapter's to reuse, and ours to write to
		close(ran)
	})
	copy(kept, ms)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: "reused", Body: []byte("reused by the caller")}
	}
	if err != nil {
		e.Fatalf("submit: %v", err)
	}
	e.await(ran, "done after Submit")
	select {
	case err := <-failed:
		e.Fatalf("outcome: %v", err)
	default:
	}
	for i := range kept {
		if d := diff(&want[i], &kept[i]); d != "" || kept[i].Partition != 0 || !kept[i].Time.IsZero() {
			e.Fatalf("Submit modified message %d: %s", i, d)
		}
	}
	for i, d := range e.receive(c, n) {
		if s := diff(&want[i], &d.Message); s != "" {
			e.Fatalf("message %d, its slot reused after Submit: %s", i, s)
		}
		e.settle(c, stagebus.Done, d)
	}
}

func endedContextCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 3 {
		e.want(stagebus.Send(ended, p, texts(topic, "too late")...), "send with a cancelled context", context.Canceled)
	}
	past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	e.want(stagebus.Send(past, p, texts(topic, "too late")...), "send after its deadline", context.DeadlineExceeded)
	e.nothingBefore(p, c, topic, "the context had ended before Submit")
	_, err := c.Receive(ended, make([]stagebus.Delivery, 1))
	e.want(err, "receive with a cancelled context from an empty topic", context.Canceled)
	e.nothingBefore(p, c, topic, "a cancelled Receive")

	// Close is bounded by its context too: it may fail, not hang, and the consumer is closed.
	slow := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: e.group("slow"), Drain: time.Hour})
	e.sendTexts(p, topic, "held")
	e.receive(slow, 1)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := slow.Close(ended); err != nil && !errors.Is(err, context.Canceled) {
			e.Errorf("close with a cancelled context: %v", err)
		}
	}()
	e.await(closed, "Close with a cancelled context and a delivery open")
}

func noRouteCase(e *env) {
	topic, missing := e.topic(), e.unused()
	p, c := e.producer(), e.consumer(topic, "")
	ms := append(texts(topic, "before"), append(texts(missing, "lost"), texts(topic, "after")...)...)
	err := stagebus.Send(e.ctx(), p, ms...)
	be, ok := errors.AsType[*stagebus.BatchError](err)
	if !ok || len(be.Errs) != 3 {
		e.Fatalf("send to a topic that doesn't exist: got %v, want a *stagebus.BatchError of 3", err)
	}
	e.want(be.Errs[1], "the message to a topic that doesn't exist", stagebus.ErrNoRoute)
	// Whether the topic is looked up before anything leaves is the adapter's choice; what it says of the neighbours must be true.
	switch {
	case be.Errs[0] == nil && be.Errs[2] == nil:
		if got := e.take(c, 2); got[0] != "before" || got[1] != "after" {
			e.Errorf("the neighbours arrived as %q", got)
		}
	case !errors.Is(be.Errs[0], stagebus.ErrNotSent) || !errors.Is(be.Errs[2], stagebus.ErrNotSent):
		e.Errorf("the neighbours' outcomes are %v and %v: want both nil or both ErrNotSent", be.Errs[0], be.Errs[2])
	}
	e.nothingBefore(p, c, topic, "an unroutable message and its neighbours")
	if _, err := e.b.Admin().Describe(e.ctx(), missing); !errors.Is(err, stagebus.ErrNotFound) {
		e.Errorf("describe the missing topic after sending to it: got %v, want ErrNotFound", err)
	}
	if _, ok := errors.AsType[*stagebus.Error](be.Errs[1]); !ok {
		e.Errorf("%T is no *stagebus.Error", be.Errs[1])
	}
	// Once it is declared the same producer gets through, if only after a while: routes may be remembered.
	e.declare(e.spec(missing, 1))
	e.eventually("send to the topic after it was declared", func() bool {
		err := stagebus.Send(e.ctx(), p, texts(missing, "found")...)
		if err != nil && !errors.Is(err, stagebus.ErrNoRoute) {
			e.Fatalf("send to the topic after it was declared: %v", err)
		}
		return err == nil
	})
	if got := e.take(e.consumer(missing, ""), 1); got[0] != "found" {
		e.Errorf("got %q", got)
	}
}

func createCase(e *env) {
	topic, missing := e.topic(), e.unused()
	p := e.producerOf(e.b, stagebus.ProducerOptions{Create: true})
	ms := append(texts(topic, "there"), texts(missing, "first", "second")...)
	e.send(p, ms...)
	if got := e.take(e.consumer(missing, ""), 2); got[0] != "first" || got[1] != "second" {
		e.Errorf("got %q from the created topic", got)
	}
	if _, err := e.b.Admin().Describe(e.ctx(), missing); err != nil {
		e.Errorf("describe the created topic: %v", err)
	}
	// A consumer may create as well.
	missing = e.unused()
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{missing}, Create: true})
	e.sendTexts(e.producer(), missing, "for the consumer")
	e.take(c, 1)
}

func windowCase(e *env) {
	topic := e.topic()
	c := e.consumer(topic, "")
	p := e.producerOf(e.b, stagebus.ProducerOptions{Window: 4, WindowBytes: 2000})
	var want []string
	for i := range 64 {
		size := 100
		if i%16 == 7 {
			size = 5000 // larger than the window
		}
		want = append(want, fmt.Sprintf("%0*d", size, i))
	}
	ms := texts(topic, want...)
	for i := range ms {
		ms[i].Key = []byte("one")
	}
	e.send(p, ms...)
	got := e.take(c, len(want))
	for i := range want {
		if got[i] != want[i] {
			e.Fatalf("message %d of a batch larger than the window: %s, want %s", i, clip([]byte(got[i])), clip([]byte(want[i])))
		}
	}
	e.nothingBefore(p, c, topic, "a batch larger than the window")
}

func backpressureCase(e *env) {
	const capacity = 8
	topic := e.unused()
	s := e.spec(topic, 1)
	s.Capacity = capacity
	if !e.h.Capacity { // the field is for brokers that hold their topics in memory: others must not mind it
		e.declare(s)
		p, c := e.producer(), e.consumer(topic, "")
		e.sendTexts(p, topic, numbered("m", 2*capacity)...)
		e.take(c, 2*capacity)
		return
	}
	e.declare(s)
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, numbered("m", capacity)...)
	short, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	e.want(stagebus.Send(short, p, texts(topic, "over")...), "send to a full topic", context.DeadlineExceeded)
	sent := make(chan error, 1)
	ctx := e.ctx()
	go func() { sent <- stagebus.Send(ctx, p, texts(topic, "waits")...) }()
	if got := e.take(c, capacity); got[0] != "m0" || got[capacity-1] != fmt.Sprint("m", capacity-1) {
		e.Errorf("got %q from a full topic", got)
	}
	if err := <-sent; err != nil {
		e.Fatalf("a send that waited for room: %v", err)
	}
	if got := e.take(c, 1); got[0] != "waits" {
		e.Errorf("got %q after the topic had room", got)
	}
	e.nothingBefore(p, c, topic, "a send that gave up")
}

func partitionCase(e *env) {
	const parts = 4
	topic := e.topicOf(parts)
	p, c := e.producer(), e.consumer(topic, "")
	var ms []stagebus.Message
	for i := range 4 * parts {
		ms = append(ms, stagebus.Message{Topic: topic, Partition: stagebus.At(int32(i % parts)), Key: []byte("one"), Body: []byte(fmt.Sprint(i % parts))})
	}
	e.send(p, ms...)
	for _, d := range e.receive(c, len(ms)) {
		if string(d.Body) != fmt.Sprint(d.Position.Partition) {
			e.Errorf("%s was pinned to another partition", describe(&d))
		}
		e.settle(c, stagebus.Done, d)
	}
	home := map[string]int32{}
	used := map[int32]bool{}
	for i := range 64 {
		k := fmt.Sprint("key ", i%16)
		e.send(p, stagebus.Message{Topic: topic, Key: []byte(k), Body: []byte(k)})
	}
	for _, d := range e.receive(c, 64) {
		if at, ok := home[string(d.Key)]; ok && at != d.Position.Partition {
			e.Errorf("key %q is in partitions %d and %d", d.Key, at, d.Position.Partition)
		}
		home[string(d.Key)] = d.Position.Partition
		used[d.Position.Partition] = true
		e.settle(c, stagebus.Done, d)
	}
	if len(used) < 2 {
		e.Errorf("16 keys are all in one of %d partitions", parts)
	}
	err := stagebus.Send(e.ctx(), p, stagebus.Message{Topic: topic, Partition: stagebus.At(parts)})
	e.want(err, "send to a partition that doesn't exist", stagebus.ErrNotFound)
	e.send(p, ms[0])
	e.take(c, 1)
}

func noPartitionCase(e *env) {
	topic := e.topic()
	p := e.producer()
	err := stagebus.Send(e.ctx(), p, stagebus.Message{Topic: topic, Partition: stagebus.At(1)})
	e.want(err, "send to a partition of a broker without", stagebus.ErrUnsupported)
	e.sendTexts(p, topic, "goes on")
	if got := e.take(e.consumer(topic, ""), 1); got[0] != "goes on" {
		e.Errorf("got %q", got)
	}
}
