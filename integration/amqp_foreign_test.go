package integration

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// A queue that a Python program declared, not durable and bound to nothing, is shared in both directions, by its name as a topic and as
// a raw queue; neither side's declaration disturbs the other's.
func TestAMQPForeignQueue(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	for _, durable := range []bool{false, true} {
		for _, prefix := range []string{"", "queue:"} {
			t.Run(fmt.Sprintf("durable=%v/%s", durable, prefix), func(t *testing.T) {
				name := amqpQueue(t, b, durable, nil)
				raw := amqpRaw(t, b)
				bus := amqpOpen(t, amqpOptions(t, b))
				c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{prefix + name}, Create: true})

				if err := raw.Publish("", name, false, false, amqp091.Publishing{Body: []byte(document)}); err != nil {
					t.Fatal(err)
				}
				d := amqpReceive(t, c, 1)[0]
				if string(d.Body) != document || len(d.Headers) != 0 || d.Topic != prefix+name || d.Attempt != 1 || d.Err != nil {
					t.Errorf("%+v", d)
				}
				amqpSettle(t, c, stagebus.Done, d)
				if err := c.Close(amqpContext(t)); err != nil {
					t.Fatal(err)
				}

				p := amqpProducer(t, bus, stagebus.ProducerOptions{Create: true})
				if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: prefix + name, Body: []byte(document)}); err != nil {
					t.Fatal(err)
				}
				got, ok, err := raw.Get(name, true)
				if err != nil || !ok || string(got.Body) != document || len(got.Headers) != 0 || got.DeliveryMode != amqp091.Persistent {
					t.Errorf("the other client got %v, %v, %+v", ok, err, got)
				}
				if _, err := raw.QueueDeclare(name, durable, false, false, false, nil); err != nil {
					t.Errorf("the other client can't declare its queue any more: %v", err)
				}
			})
		}
	}
}

// Messages of one key keep their order on the way over the exchange, where nothing takes them, and over the default exchange.
func TestAMQPForeignQueueKeepsOrder(t *testing.T) {
	const keys, each = 5, 200
	b := broker.Require(t, broker.AMQP)
	name := amqpQueue(t, b, false, nil)
	bus := amqpOpen(t, amqpOptions(t, b))
	// Somebody else's topic proves the exchange to the producer, so that the first messages to the queue go there in numbers.
	other := amqpTopic(t, bus, stagebus.TopicSpec{})
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})
	var ms []stagebus.Message
	for k := range keys {
		ms = append(ms, stagebus.Message{Topic: other, Key: fmt.Append(nil, k)})
	}
	if err := stagebus.Send(amqpContext(t), p, ms...); err != nil {
		t.Fatal(err)
	}
	ms = nil
	for i := range each {
		for k := range keys {
			ms = append(ms, stagebus.Message{Topic: name, Key: fmt.Append(nil, k), Body: fmt.Append(nil, i)})
		}
	}
	if err := stagebus.Send(amqpContext(t), p, ms...); err != nil {
		t.Fatal(err)
	}
	c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{name}})
	next := map[string]int{}
	for _, d := range amqpReceiveAll(t, c, keys*each) {
		if want := fmt.Sprint(next[string(d.Key)]); string(d.Body) != want {
			t.Fatalf("key %s: got %s, want %s", d.Key, d.Body, want)
		}
		next[string(d.Key)]++
	}
}

func amqpReceiveAll(t *testing.T, c stagebus.Consumer, n int) []stagebus.Delivery {
	t.Helper()
	var ds []stagebus.Delivery
	for len(ds) < n {
		k := min(100, n-len(ds))
		part := amqpReceive(t, c, k)
		amqpSettle(t, c, stagebus.Done, part...)
		ds = append(ds, part...)
	}
	return ds
}

// Header types survive receive, copy and send, and a dead letter has them as they came.
func TestAMQPHeaderTypes(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	from, to := amqpQueue(t, b, false, nil), amqpQueue(t, b, false, nil)
	raw := amqpRaw(t, b)
	headers := amqp091.Table{
		"int": int32(5), "long": int64(1) << 40, "bool": true, "time": time.Unix(1625512731, 0), "float": 0.5, "void": nil,
		"bytes": []byte{1, 0xff}, "text": "ü", "table": amqp091.Table{"a": []any{int16(1), "b"}}, "many": []any{"x", "y"},
	}
	if err := raw.Publish("", from, false, false, amqp091.Publishing{Headers: headers, Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	bus := amqpOpen(t, amqpOptions(t, b))
	c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{from}})
	d := amqpReceive(t, c, 1)[0]
	if v, _ := d.Headers.Get("long"); v != "1099511627776" {
		t.Errorf("long is %q", v)
	}
	m := d.Message
	m.Topic = to
	if err := stagebus.Send(amqpContext(t), amqpProducer(t, bus, stagebus.ProducerOptions{}), m); err != nil {
		t.Fatal(err)
	}
	got, ok, err := raw.Get(to, true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if !reflect.DeepEqual(got.Headers, headers) {
		t.Errorf("%#v\nhas become\n%#v", headers, got.Headers)
	}
	amqpSettle(t, c, stagebus.Reject("types"), d)
	dead := stagebus.DeadLetterTopic(from, "")
	t.Cleanup(func() { _, _ = raw.QueueDelete(dead, false, false, false) })
	got, ok, err = raw.Get(dead, true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for name, v := range headers {
		if !reflect.DeepEqual(got.Headers[name], v) {
			t.Errorf("dead letter: %s was %#v and is %#v", name, v, got.Headers[name])
		}
	}
	if got.Headers[stagebus.HeaderDeadReason] != "types" || got.Headers[stagebus.HeaderDeadTopic] != from {
		t.Errorf("%v", got.Headers)
	}
}

// A queue that is deleted under its consumer is waited for, and not made again by us: its owner knows how it has to be.
func TestAMQPQueueDeleted(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
			name := amqpQueue(t, b, durable, nil)
			raw := amqpRaw(t, b)
			o := amqpOptions(t, b)
			told := newEvents()
			o.Hook = told.hook
			bus := amqpOpen(t, o)
			c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{name}})
			publish := func(body string) {
				t.Helper()
				if err := raw.Publish("", name, false, false, amqp091.Publishing{Body: []byte(body)}); err != nil {
					t.Fatal(err)
				}
			}
			publish("before")
			open := amqpReceive(t, c, 1)[0]
			if _, err := raw.QueueDelete(name, false, false, false); err != nil {
				t.Fatal(err)
			}
			e := told.await(t, stagebus.EventMissing)
			if e.Topic != name || !errors.Is(e.Err, stagebus.ErrNotFound) {
				t.Errorf("%+v", e)
			}
			if err := c.Settle(amqpContext(t), stagebus.Done, open.Token); !errors.Is(err, stagebus.ErrStale) {
				t.Errorf("settle of a delivery from the deleted queue: %v", err)
			}
			if _, err := amqpRaw(t, b).QueueDeclarePassive(name, durable, false, false, false, nil); err == nil {
				t.Error("the queue was made again by somebody else than its owner")
			}
			p := amqpProducer(t, bus, stagebus.ProducerOptions{})
			if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: name}); !errors.Is(err, stagebus.ErrNoRoute) {
				t.Errorf("send to the deleted queue: %v", err)
			}
			if _, err := raw.QueueDeclare(name, durable, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
			publish("after")
			d := amqpReceive(t, c, 1)[0]
			if string(d.Body) != "after" || d.Token.Lane == open.Token.Lane {
				t.Errorf("%q in lane %v", d.Body, d.Token.Lane.Info())
			}
			amqpSettle(t, c, stagebus.Done, d)
		})
	}
}
