package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// Producers that are closed in a hurry leave no channel behind on the connection that others use, and what comes back to them holds up nobody.
func TestAMQPCloseInAHurry(t *testing.T) {
	const rounds = 20
	b := broker.Require(t, broker.AMQP)
	base, ok := b.Management()
	if !ok {
		t.Skip("needs the management API")
	}
	o := amqpOptions(t, b)
	bus := amqpOpen(t, o)
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	stays := amqpProducer(t, bus, stagebus.ProducerOptions{})
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	for range rounds {
		p := amqpProducer(t, bus, stagebus.ProducerOptions{Window: 4096})
		ms := make([]stagebus.Message, 4000)
		for i := range ms {
			ms[i] = stagebus.Message{Topic: "queue:no-such-queue", Body: make([]byte, 100)}
		}
		if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: "queue:" + topic}); err != nil {
			t.Fatal(err)
		}
		done := make(chan []stagebus.Outcome, 1)
		if err := p.Submit(amqpContext(t), ms, func(os []stagebus.Outcome) { done <- os }); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(hurry); !errors.Is(err, stagebus.ErrUncertain) {
			t.Errorf("close: %v", err)
		}
		<-done
		began := time.Now()
		if err := stagebus.Send(amqpContext(t), stays, stagebus.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Fatalf("another producer's message took %v", took)
		}
	}
	var list []struct {
		Channels   int `json:"channels"`
		Properties struct {
			Name string `json:"connection_name"`
		} `json:"client_properties"`
	}
	eventually(t, "the channels are closed", func() bool {
		manage(t, http.MethodGet, base+"/api/connections", &list)
		n, seen := 0, false
		for _, c := range list {
			if c.Properties.Name == o.Name {
				n, seen = n+c.Channels, true
			}
		}
		return seen && n <= 4
	})
}

// A group whose queue is full makes a message of its topic refused, while the others have it: that is not a definite failure.
func TestAMQPRefusedByOneGroup(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	bus := amqpOpen(t, amqpOptions(t, b))
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	full := amqpQueue(t, b, true, amqp091.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	if err := amqpRaw(t, b).QueueBind(full, topic, "stagebus", false, nil); err != nil {
		t.Fatal(err)
	}
	c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	for i := range 5 {
		err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: topic, Body: fmt.Append(nil, i)})
		d := amqpReceive(t, c, 1)[0]
		amqpSettle(t, c, stagebus.Done, d)
		if string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("received %q, want %d", d.Body, i)
		}
		if err != nil && (!errors.Is(err, stagebus.ErrUncertain) || !errors.Is(err, stagebus.ErrRefused)) {
			t.Errorf("message %d, which arrived: %v", i, err)
		}
		if i == 4 && err == nil {
			t.Error("nothing was refused")
		}
	}
}

// Flush and Close at the same moment don't take each other's answers.
func TestAMQPFlushBesideClose(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	bus := amqpOpen(t, amqpOptions(t, b))
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	for range 30 {
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
		flushed := make(chan error, 8)
		for range cap(flushed) {
			go func() { flushed <- c.Flush(amqpContext(t)) }()
		}
		if err := c.Close(amqpContext(t)); err != nil {
			t.Errorf("close: %v", err)
		}
		for range cap(flushed) {
			if err := <-flushed; err != nil && strings.Contains(err.Error(), "unexpected command") {
				t.Errorf("flush: %v", err)
			}
		}
	}
}

// Nobody who closes something waits for a frozen broker beyond his context; a connection that froze when it was new is noticed as well.
func TestAMQPCloseFrozenBroker(t *testing.T) {
	i := broker.Private(t, broker.AMQP)
	o := amqpOptions(t, &i.Broker)
	o.Heartbeat = 8 * time.Second
	told := newEvents()
	o.Hook = told.hook
	bus := amqpOpen(t, o)
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	many := amqpProducer(t, bus, stagebus.ProducerOptions{Window: 8192})
	cs := make([]stagebus.Consumer, 8)
	for i := range cs {
		cs[i] = amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Ephemeral})
	}
	for _, p := range []stagebus.Producer{p, many} {
		if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cs {
		amqpSettle(t, c, stagebus.Retry(time.Minute), amqpReceive(t, c, 2)...) // makes a queue that Close deletes
	}
	fresh := newEvents()
	o.Hook = fresh.hook
	amqpProducer(t, amqpOpen(t, o), stagebus.ProducerOptions{})
	if err := i.Pause(amqpContext(t)); err != nil {
		t.Fatal(err)
	}
	bounded := func(what string, f func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := f(ctx)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s took %v: %v", what, took, err)
		}
	}
	var closing sync.WaitGroup
	for _, c := range cs {
		closing.Go(func() { bounded("close of an ephemeral consumer", c.Close) })
	}
	closing.Wait()
	submit := func(p stagebus.Producer, ms ...stagebus.Message) {
		t.Helper()
		if err := p.Submit(amqpContext(t), ms, func([]stagebus.Outcome) {}); err != nil {
			t.Fatal(err)
		}
	}
	small := make([]stagebus.Message, 4000)
	for i := range small {
		small[i].Topic = "queue:" + topic
	}
	submit(many, small...)
	bounded("close with many on their way", many.Close)
	submit(p, stagebus.Message{Topic: topic, Body: make([]byte, 14<<20)})
	bounded("close with a write that is stuck", p.Close)
	fresh.await(t, stagebus.EventDisconnected)
	if err := i.Resume(amqpContext(t)); err != nil {
		t.Fatal(err)
	}
}
