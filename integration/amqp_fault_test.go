package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/integration/broker"
)

// Returns and confirms are told apart for each message, in any mixture.
func TestAMQPUnroutableMix(t *testing.T) {
	const n = 6000
	b := broker.Require(t, broker.AMQP)
	bus := amqpOpen(t, amqpOptions(t, b))
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	foreign := amqpQueue(t, b, false, nil)
	topics := []string{topic, "queue:no-such-queue", topic, foreign, "it.no.such.topic"}
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	ms := make([]stagebus.Message, n)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: topics[i%len(topics)], Key: fmt.Append(nil, i%7), Body: []byte("the same")}
	}
	err := stagebus.Send(amqpContext(t), p, ms...)
	be, ok := errors.AsType[*stagebus.BatchError](err)
	if !ok {
		t.Fatal(err)
	}
	for i, err := range be.Errs {
		routable := ms[i].Topic == topic || ms[i].Topic == foreign
		if routable && err != nil || !routable && !errors.Is(err, stagebus.ErrNoRoute) {
			t.Fatalf("message %d to %s: %v", i, ms[i].Topic, err)
		}
	}
	for _, name := range []string{topic, foreign} {
		info, err := bus.Admin().Describe(amqpContext(t), name)
		want := int64(2 * n / 5)
		if name == foreign {
			want = n / 5
		}
		if err != nil || info.Groups[0].Depth != want {
			t.Errorf("%s: %+v, %v; want %d", name, info, err, want)
		}
	}
}

// All connections of a program are closed by the operator while it sends and receives: what was acknowledged arrives, and
// both go on by themselves.
func TestAMQPCloseAllConnections(t *testing.T) {
	const rounds, each = 3, 400
	b := broker.Require(t, broker.AMQP)
	for _, queueType := range []string{"classic", "quorum"} {
		t.Run(queueType, func(t *testing.T) {
			o := amqpOptions(t, b)
			o.QueueType = queueType
			told := newEvents()
			o.Hook = told.hook
			bus := amqpOpen(t, o)
			topic := amqpTopic(t, bus, stagebus.TopicSpec{})
			p := amqpProducer(t, bus, stagebus.ProducerOptions{})
			c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Prefetch: 50})

			var mu sync.Mutex
			got := map[string]int{}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				dst := make([]stagebus.Delivery, 10)
				for {
					k, err := c.Receive(ctx, dst)
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							t.Errorf("receive: %v", err)
						}
						return
					}
					for _, d := range dst[:k] {
						if err := c.Settle(ctx, stagebus.Done, d.Token); err != nil && !errors.Is(err, stagebus.ErrStale) {
							t.Errorf("settle: %v", err)
						}
						mu.Lock()
						got[string(d.Body)]++
						mu.Unlock()
					}
				}
			})
			defer func() { cancel(); wg.Wait() }()
			acknowledged := map[string]bool{}
			for round := range rounds {
				for i := range each {
					m := stagebus.Message{Topic: topic, Key: []byte("k"), Body: fmt.Appendf(nil, "%d-%d", round, i)}
					if i == each/2 {
						closed := 0
						eventually(t, "the management API knows both connections", func() bool {
							closed += closeConnections(t, b, o.Name)
							return closed >= 2
						})
						told.await(t, stagebus.EventDisconnected)
					}
					switch err := stagebus.Send(amqpContext(t), p, m); {
					case err == nil:
						acknowledged[string(m.Body)] = true
					case !errors.Is(err, stagebus.ErrUncertain):
						t.Fatalf("send: %v", err)
					}
				}
			}
			eventually(t, "all that was acknowledged is received", func() bool {
				mu.Lock()
				defer mu.Unlock()
				for body := range acknowledged {
					if got[body] == 0 {
						return false
					}
				}
				return true
			})
			if len(acknowledged) < rounds*each*9/10 {
				t.Errorf("only %d of %d were acknowledged", len(acknowledged), rounds*each)
			}
		})
	}
}

// A broker that is frozen keeps nobody beyond its context, and all goes on when it thaws.
func TestAMQPFrozenBroker(t *testing.T) {
	i := broker.Private(t, broker.AMQP)
	o := amqpOptions(t, &i.Broker)
	o.Heartbeat, o.ConnectTimeout = 2*time.Second, 2*time.Second
	told := newEvents()
	o.Hook = told.hook
	bus := amqpOpen(t, o)
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
	spare := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
	if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: topic, Body: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	if err := i.Pause(amqpContext(t)); err != nil {
		t.Fatal(err)
	}
	bounded := func(what string, limit time.Duration, f func(context.Context) error) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		began := time.Now()
		err := f(ctx)
		if took := time.Since(began); took > limit+time.Second {
			t.Errorf("%s took %v with a context of %v", what, took, limit)
		}
		return err
	}
	limit := 300 * time.Millisecond
	large := make([]byte, 8<<20) // more than the socket's buffers take
	if err := bounded("send", limit, func(ctx context.Context) error {
		return stagebus.Send(ctx, p, stagebus.Message{Topic: topic, Body: []byte("1")}, stagebus.Message{Topic: topic, Body: large})
	}); !errors.Is(err, stagebus.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("send: %v", err)
	}
	if err := bounded("ping", limit, bus.Ping); !errors.Is(err, stagebus.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
	if err := bounded("flush", limit, c.Flush); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush: %v", err)
	}
	_ = bounded("close", limit, spare.Close) // it can't know what the broker knows
	told.await(t, stagebus.EventDisconnected)
	told.await(t, stagebus.EventError) // dialling a frozen broker
	if err := i.Resume(amqpContext(t)); err != nil {
		t.Fatal(err)
	}
	told.await(t, stagebus.EventConnected)
	if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: topic, Body: []byte("last")}); err != nil {
		t.Fatal(err)
	}
	for {
		d := amqpReceive(t, c, 1)[0]
		if err := c.Settle(amqpContext(t), stagebus.Done, d.Token); err != nil && !errors.Is(err, stagebus.ErrStale) {
			t.Fatal(err)
		}
		if string(d.Body) == "last" {
			break
		}
	}
	if err := c.Close(amqpContext(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.Receive(amqpContext(t), make([]stagebus.Delivery, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("receive after close: %v", err)
	}
}

// Two consumers that ask for the order of keys need a queue that was declared for it, and are told so otherwise.
func TestAMQPKeyOrderNeedsItsQueue(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	for _, queueType := range []string{"classic", "quorum"} {
		t.Run(queueType, func(t *testing.T) {
			o := amqpOptions(t, b)
			o.QueueType = queueType
			bus := amqpOpen(t, o)
			plain := amqpTopic(t, bus, stagebus.TopicSpec{})
			_, err := bus.Consumer(amqpContext(t), stagebus.ConsumerOptions{Topics: []string{plain}, KeyOrder: true})
			if !errors.Is(err, stagebus.ErrConflict) {
				t.Errorf("a queue without a single active consumer: %v", err)
			}
			single := amqpTopic(t, bus, stagebus.TopicSpec{Native: amqp.TopicSpec{SingleActiveConsumer: true}})
			first := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{single}, KeyOrder: true})
			second := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{single}, KeyOrder: true})
			p := amqpProducer(t, bus, stagebus.ProducerOptions{})
			for i := range 20 {
				if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: single, Body: fmt.Append(nil, i)}); err != nil {
					t.Fatal(err)
				}
			}
			amqpSettle(t, first, stagebus.Done, amqpReceive(t, first, 10)...)
			if err := first.Close(amqpContext(t)); err != nil {
				t.Fatal(err)
			}
			for i, d := range amqpReceive(t, second, 10) {
				if string(d.Body) != fmt.Sprint(10+i) {
					t.Errorf("the next one got %q, want %d", d.Body, 10+i)
				}
				amqpSettle(t, second, stagebus.Done, d)
			}
			err = bus.Admin().Declare(amqpContext(t), stagebus.TopicSpec{Name: plain, Native: amqp.TopicSpec{SingleActiveConsumer: true}})
			if !errors.Is(err, stagebus.ErrConflict) {
				t.Errorf("declare with other properties: %v", err)
			}
		})
	}
}

// A message that a policy of the queue refuses is a definite failure; one that the broker finds too large only when it has come ends the
// channel, and nothing else.
func TestAMQPRefused(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	queue := amqpQueue(t, b, true, amqp091.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	bus := amqpOpen(t, amqpOptions(t, b))
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	var err error
	for range 3 { // the limit is not exact
		err = errors.Join(err, stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: "queue:" + queue, Body: []byte("x")}))
	}
	if !errors.Is(err, stagebus.ErrRefused) || errors.Is(err, stagebus.ErrUncertain) {
		t.Errorf("beyond the queue's length: %v", err)
	}
	limit := bus.Capabilities().MaxMessage
	err = stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: "queue:" + queue, Body: make([]byte, limit+1)})
	if !errors.Is(err, stagebus.ErrTooLarge) {
		t.Errorf("a body of %d bytes: %v", limit+1, err)
	}
}
