package adaptertest

import (
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

var retryCases = []Case{
	{Name: "retry/delay", Proves: "a retried message comes again, once, and not before its delay", run: retryDelayCase},
	{Name: "retry/attempts", Proves: "each Retry adds one to Attempt, which begins at 1", run: retryAttemptsCase},
	{Name: "retry/content", Proves: "a retried message is the message as it was: bytes, headers, attributes, topic", run: retryContentCase},
	{Name: "retry/others-go-on", Proves: "while one message waits for its next attempt, the others go on", run: retryOthersCase},
	{Name: "retry/own-group", Proves: "a Retry concerns its group only", run: retryGroupCase},
	{Name: "retry/durable", Proves: "a retried message outlives the consumer that retried it", run: retryDurableCase},
}

// tolerance is what a broker that counts in milliseconds may be early.
const tolerance = 2 * time.Millisecond

func retryDelayCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	for _, delay := range []time.Duration{150 * time.Millisecond, 400 * time.Millisecond} {
		e.sendTexts(p, topic, "retried")
		d := e.receive(c, 1)[0]
		begin := time.Now()
		e.settle(c, stagebus.Retry(delay), d)
		d = e.receive(c, 1)[0]
		if took := time.Since(begin); took < delay-tolerance {
			e.Errorf("Retry(%v) came again after %v", delay, took)
		}
		if string(d.Body) != "retried" {
			e.Fatalf("after a Retry: %s", describe(&d))
		}
		e.settle(c, stagebus.Done, d)
		e.nothingBefore(p, c, topic, "the retried message is done")
	}
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "the retried messages are done")
}

func retryAttemptsCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "tried")
	for attempt := 1; attempt <= 4; attempt++ {
		d := e.receive(c, 1)[0]
		if d.Attempt != attempt {
			e.Errorf("attempt %d says that it is %d", attempt, d.Attempt)
		}
		if attempt == 4 {
			e.settle(c, stagebus.Done, d)
			break
		}
		e.settle(c, stagebus.Retry(0), d)
		e.wantBatch(c.Settle(e.ctx(), stagebus.Done, d.Token), "settle what was retried", stagebus.ErrStale)
	}
	e.nothingBefore(p, c, topic, "the last attempt is done")
}

// eventful is a message that has everything.
func eventful(topic string) stagebus.Message {
	return stagebus.Message{
		Topic: topic, Key: allBytes()[:200], Body: allBytes(), Time: time.Now().Add(-time.Hour),
		ID: "id-1", Source: "/source", Type: "type.v1", Subject: "subject", ContentType: "application/octet-stream", ContentEncoding: "none",
		CorrelationID: "corr", ReplyTo: "replies", Audience: "audience", Priority: 3, Deadline: time.Now().Add(time.Hour).Truncate(time.Millisecond),
		Headers: stagebus.Headers{{Key: "z", Value: "1"}, {Key: "a", Value: ""}, {Key: "z", Value: "\xff\x00"}, {Key: "ce_ext", Value: "x"}},
	}
}

func retryContentCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	for _, want := range []stagebus.Message{
		eventful(topic), {Topic: topic, Body: []byte("bare")}, {Topic: topic}, {Topic: topic, Key: []byte{}, Body: []byte{}},
	} {
		e.send(p, want)
		for range 3 {
			d := e.receive(c, 1)[0]
			if s := diff(&want, &d.Message); s != "" {
				e.Errorf("attempt %d: %s", d.Attempt, s)
			}
			e.settle(c, stagebus.Retry(0), d)
		}
		e.settle(c, stagebus.Done, e.receive(c, 1)...)
	}
}

func retryOthersCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, "waits")
	e.settle(c, stagebus.Retry(5*time.Second), e.receive(c, 1)...)
	want := numbered("m", 20)
	e.sendTexts(p, topic, want...)
	if got := e.take(c, len(want)); !slices.Equal(got, want) {
		e.Errorf("got %q while another message waits for its next attempt, want %q", got, want)
	}
	e.nothingBefore(p, c, topic, "one message waits for its next attempt, the others are done")
}

func retryGroupCase(e *env) {
	ga, gb := e.group("a"), e.group("b")
	topic := e.topic(ga, gb)
	p := e.producer()
	a, b := e.consumer(topic, ga), e.consumer(topic, gb)
	e.sendTexts(p, topic, "m")
	e.settle(a, stagebus.Retry(0), e.receive(a, 1)...)
	e.take(b, 1)
	d := e.receive(a, 1)[0]
	if d.Attempt != 2 {
		e.Errorf("%s: want attempt 2", describe(&d))
	}
	e.settle(a, stagebus.Done, d)
	e.nothingBefore(p, b, topic, "another group's Retry")
	e.take(a, 1) // its copy of the marker
	e.nothingBefore(p, a, topic, "the retried message is done")
}

func retryDurableCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	e.sendTexts(p, topic, numbered("m", 3)...)
	ds := e.receive(c, 3)
	begin := time.Now()
	e.settle(c, stagebus.Retry(300*time.Millisecond), ds...)
	e.closeIt("consumer", c.Close)
	e.wantBatch(c.Settle(e.ctx(), stagebus.Done, ds[0].Token), "settle after Close", stagebus.ErrStale)
	c = e.consumer(topic, "")
	ds = e.receive(c, 3)
	if took := time.Since(begin); took < 300*time.Millisecond-tolerance {
		e.Errorf("Retry(300ms) and a new consumer: came again after %v", took)
	}
	var got []string
	for _, d := range ds {
		got = append(got, string(d.Body))
		if d.Attempt != 2 {
			e.Errorf("%s: want attempt 2", describe(&d))
		}
	}
	if want := numbered("m", 3); !equalSets(got, want) {
		e.Errorf("got %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
	e.settle(c, stagebus.Done, ds...)
	e.nothingBefore(p, c, topic, "the retried messages are done")
}
