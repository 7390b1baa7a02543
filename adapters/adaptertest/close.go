package adaptertest

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/stagebus/stagebus"
)

var closeCases = []Case{
	{Name: "close/gives-back", Proves: "what was received and not settled when the consumer closes comes again to the next", run: givesBackCase},
	{Name: "close/undelivered", Proves: "what the consumer had fetched and nobody received comes to the next, unharmed", run: undeliveredCase},
	{Name: "close/drains", Proves: "Close marks lanes as draining and waits: what is settled in time counts, with any verdict", run: drainsCase},
	{Name: "close/drain-limit", Proves: "Close waits for open deliveries no longer than Drain, nor than its context", run: drainLimitCase},
	{Name: "close/commits", Proves: "what was settled just before Close is known to the broker when it returns", run: closeCommitsCase},
	{Name: "close/broker", Proves: "closing the broker closes its consumers and producers, and opens no more", run: closeBrokerCase},
}

func givesBackCase(e *env) {
	const n = 10
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	want := numbered("m", n)
	e.sendTexts(p, topic, want...)
	e.receive(c, n)
	e.flush(c) // of what was settled: nothing
	e.closeIt("consumer", c.Close)
	c = e.consumer(topic, "")
	ds := e.receive(c, n)
	for i := range ds {
		if string(ds[i].Body) != want[i] {
			e.Errorf("delivery %d of the next consumer is %s, want %q", i, describe(&ds[i]), want[i])
		}
	}
	e.settle(c, stagebus.Done, ds...)
	e.closeIt("consumer", c.Close)
	e.nothingBefore(p, e.consumer(topic, ""), topic, "all were settled by the second consumer")
}

func undeliveredCase(e *env) {
	const n = 100
	topic := e.topic()
	p := e.producer()
	e.sendTexts(p, topic, numbered("m", n)...)
	for i := range 3 { // a consumer takes one and leaves
		c := e.consumer(topic, "")
		if got := e.take(c, 1); got[0] != numbered("m", n)[i] {
			e.Errorf("consumer %d got %q first", i, got)
		}
		e.closeIt("consumer", c.Close)
	}
	c := e.consumer(topic, "")
	for i, d := range e.receive(c, n-3) {
		if string(d.Body) != numbered("m", n)[i+3] {
			e.Fatalf("delivery %d of the last consumer is %s", i, describe(&d))
		}
		if d.Attempt > 1 {
			e.Errorf("%s was never delivered before", describe(&d))
		}
		e.settle(c, stagebus.Done, d)
	}
	e.nothingBefore(p, c, topic, "all were settled")
}

func drainsCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p := e.producer()
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: g, Drain: e.h.Patience})
	e.sendTexts(p, topic, "done", "retried", "rejected", "done last", "released")
	ds := e.receive(c, 5)
	closed := make(chan error, 1)
	ctx := e.ctx()
	go func() { closed <- c.Close(ctx) }()
	lane := ds[0].Token.Lane
	e.await(lane.Draining(), "the lane drains when its consumer is being closed")
	if _, err := c.Receive(e.ctx(), make([]stagebus.Delivery, 1)); !errors.Is(err, io.EOF) {
		e.Errorf("receive from a consumer that is being closed: %v, want io.EOF", err)
	}
	if err := context.Cause(lane.Context()); err != nil {
		e.Fatalf("the lane's context has ended while it drains: %v", err)
	}
	for i, v := range []stagebus.Verdict{stagebus.Done, stagebus.Retry(0), stagebus.Reject("while draining")} {
		e.settle(c, v, ds[i])
	}
	e.settle(c, stagebus.Release, ds[4]) // the last: what is settled behind an open one may come again
	select {
	case err := <-closed:
		e.Fatalf("Close returned %v while a delivery was open, long before Drain was over", err)
	case <-time.After(moment):
	}
	e.settle(c, stagebus.Done, ds[3])
	if err := <-closed; err != nil {
		e.Errorf("close: %v", err)
	}
	c = e.consumer(topic, g)
	if got := e.take(c, 2); !equalSets(got, []string{"retried", "released"}) {
		e.Errorf("after the drain %q came again, want what was retried and released", got)
	}
	e.nothingBefore(p, c, topic, "all were settled")
	if got := e.take(e.consumer(stagebus.DeadLetterTopic(topic, g), ""), 1); got[0] != "rejected" {
		e.Errorf("the dead letter is %q", got)
	}
}

func drainLimitCase(e *env) {
	const drain = 300 * time.Millisecond
	topic := e.topic()
	p := e.producer()
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Drain: drain})
	e.sendTexts(p, topic, "held")
	e.receive(c, 1)
	begin := time.Now()
	e.closeIt("consumer", c.Close)
	if took := time.Since(begin); took < drain {
		e.Errorf("Close with a delivery open returned after %v, it gives handlers %v", took, drain)
	}
	c = e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Drain: time.Hour})
	d := e.receive(c, 1)[0]
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := c.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			e.Errorf("close, until its context ends: %v", err)
		}
	}()
	e.await(closed, "Close ends with its context though Drain is an hour")
	e.await(d.Token.Lane.Context().Done(), "the lane ends with Close")
	c = e.consumer(topic, "")
	if got := e.take(c, 1); got[0] != "held" {
		e.Errorf("got %q", got)
	}
	e.nothingBefore(p, c, topic, "all were settled")
}

func closeCommitsCase(e *env) {
	topic := e.topic()
	p := e.producer()
	for i := range 5 {
		c := e.consumer(topic, "")
		e.sendTexts(p, topic, numbered("m", 10*i+1)...)
		e.take(c, 10*i+1)
		e.closeIt("consumer", c.Close)
		c = e.consumer(topic, "")
		e.nothingBefore(p, c, topic, "all were settled before Close")
		e.closeIt("consumer", c.Close)
	}
}

func closeBrokerCase(e *env) {
	topic := e.topic()
	b := e.open(stagebus.BrokerOptions{Stack: e.h.stack})
	p := e.producerOf(b, stagebus.ProducerOptions{})
	c := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}})
	e.sendTexts(p, topic, "settled", "held")
	ds := e.receive(c, 2)
	e.settle(c, stagebus.Done, ds[0])
	e.closeIt("broker", b.Close)
	_, err := c.Receive(e.ctx(), make([]stagebus.Delivery, 1))
	e.want(err, "receive after the broker was closed", io.EOF)
	e.want(p.Submit(e.ctx(), texts(topic, "late"), func([]stagebus.Outcome) {}), "submit after the broker was closed", stagebus.ErrClosed)
	_, err = b.Producer(e.ctx(), stagebus.ProducerOptions{})
	e.want(err, "open a producer of a closed broker", stagebus.ErrClosed)
	_, err = b.Consumer(e.ctx(), stagebus.ConsumerOptions{Topics: []string{topic}})
	e.want(err, "open a consumer of a closed broker", stagebus.ErrClosed)
	e.closeIt("broker, again", b.Close)
	c = e.consumer(topic, "")
	if got := e.take(c, 1); got[0] != "held" {
		e.Errorf("the next handle got %q", got)
	}
	e.nothingBefore(e.producer(), c, topic, "all were settled")
}
