package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/integration/broker"
)

var amqpPeers = []peer{withPika, withAioPika, withAMQPJava}

// eachPeer runs f with each of them that this machine can have.
func eachPeer(t *testing.T, peers []peer, f func(t *testing.T, p peer)) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			p.command(t) // outside of what is timed
			f(t, p)
		})
	}
}

// amqpLine is a message as programs of AMQP clients write and read it.
type amqpLine struct {
	Body       []byte         `json:"body"`
	Properties map[string]any `json:"properties,omitempty"`
	Headers    map[string]any `json:"headers,omitempty"`
}

func (l amqpLine) String() string {
	body := l.Body
	l.Body = nil
	b, err := json.Marshal(l) // in order of names, whatever the types of numbers
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d bytes %.60q %s", len(body), body, b)
}

// The bodies that everybody must bring through.
var (
	everyByte = func() []byte {
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}()
	largeBody = func() []byte {
		b := make([]byte, 200_000)
		r := rand.NewChaCha8([32]byte{})
		_, _ = r.Read(b) // never fails
		return b
	}()
)

// amqpCase is one message in both forms, ours and the one that others see.
type amqpCase struct {
	ours stagebus.Message
	wire amqpLine
}

func amqpCases() []amqpCase {
	at := time.Date(2021, 7, 5, 19, 18, 51, 123456789, time.UTC)
	deadline := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	bare := func(body []byte) amqpCase { return amqpCase{stagebus.Message{Body: body}, amqpLine{Body: body}} }
	return []amqpCase{
		bare([]byte(document)),
		bare(everyByte),
		bare([]byte{}),
		bare(largeBody),
		{stagebus.Message{}, amqpLine{Body: []byte{}, Headers: map[string]any{"stagebus-nil": ""}}},
		{
			stagebus.Message{Body: []byte(document), Time: at.Truncate(time.Second), Headers: stagebus.Headers{{Key: "zone", Value: "eu"}}},
			amqpLine{Body: []byte(document), Properties: map[string]any{"timestamp": at.Unix()}, Headers: map[string]any{"zone": "eu"}},
		},
		{
			stagebus.Message{
				Key: []byte("user-7"), Body: []byte(document), Time: at,
				Headers: stagebus.Headers{
					{Key: "zone", Value: "grün"}, {Key: "tag", Value: "a"}, {Key: "tag", Value: "b"}, {Key: "raw", Value: "\x00\xff"}, {Key: "ce_sequence", Value: "7"},
				},
				ID: "0199", Source: "/stage/preprocess", Type: "io.example.tokens.v1", Subject: "shard/7", ContentType: "application/json",
				ContentEncoding: "identity", CorrelationID: "req-1", ReplyTo: "replies", Audience: "llm", Deadline: deadline, Priority: 3,
			},
			amqpLine{
				Body: []byte(document),
				Properties: map[string]any{
					"message_id": "0199", "type": "io.example.tokens.v1", "content_type": "application/json", "content_encoding": "identity",
					"correlation_id": "req-1", "reply_to": "replies", "priority": 3, "timestamp": at.Unix(), "expiration": "3600000",
				},
				Headers: map[string]any{
					"cloudEvents_specversion": "1.0", "cloudEvents_id": "0199", "cloudEvents_source": "/stage/preprocess",
					"cloudEvents_type": "io.example.tokens.v1", "cloudEvents_subject": "shard/7", "cloudEvents_time": at.Format(time.RFC3339Nano),
					"cloudEvents_correlationid": "req-1", "cloudEvents_audience": "llm", "cloudEvents_expirytime": deadline.Format(time.RFC3339Nano),
					"cloudEvents_partitionkey": "user-7", "cloudEvents_sequence": "7", "stagebus-order": "zone,tag,tag,raw,ce_sequence",
					"zone": "grün", "tag": []any{"a", "b"}, "raw": map[string]any{"bytes": []byte("\x00\xff")},
				},
			},
		},
	}
}

// inOrder makes a queue without priorities, which from RabbitMQ 4.0 on every quorum queue has.
var inOrder = stagebus.TopicSpec{Native: amqp.TopicSpec{QueueType: "classic"}}

// What we send arrives at the other clients byte by byte, with its attributes under the names that DESIGN.md documents.
func TestInteropAMQPOurs(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		bus := amqpOpen(t, amqpOptions(t, b))
		topic := amqpTopic(t, bus, inOrder)
		cases := amqpCases()
		producer := amqpProducer(t, bus, stagebus.ProducerOptions{})
		for _, c := range cases { // one at a time: messages of different keys may pass one another
			c.ours.Topic = topic
			if err := stagebus.Send(amqpContext(t), producer, c.ours); err != nil {
				t.Fatal(err)
			}
		}
		for i, got := range consumeLines[amqpLine](t, p, len(cases), pikaURL(t, b.URL()), topic) {
			want := cases[i].wire
			want.Properties = with(want.Properties, "delivery_mode", 2) // we send persistent
			if left, ok := got.Properties["expiration"].(string); ok {  // it counts from the time of sending
				ms, err := strconv.Atoi(left)
				if err != nil || ms > 3_600_000 || ms < 3_500_000 {
					t.Errorf("expiration %q", left)
				}
				got.Properties["expiration"] = "3600000"
			}
			got.Properties, got.Headers = with(got.Properties, "", nil), with(got.Headers, "", nil)
			want.Headers = with(want.Headers, "", nil)
			if p.name == withAioPika.name && got.Properties["priority"] == 0.0 { // it makes one up where there is none
				delete(got.Properties, "priority")
			}
			if got.String() != want.String() {
				t.Errorf("message %d: got\n%v, want\n%v", i, got, want)
			}
			if string(got.Body) != string(want.Body) {
				t.Errorf("message %d: another body", i)
			}
		}
	})
}

// with returns a copy of m, which isn't nil, with one more entry unless its name is empty.
func with(m map[string]any, name string, v any) map[string]any {
	c := map[string]any{}
	for k, v := range m {
		c[k] = v
	}
	if name != "" {
		c[name] = v
	}
	return c
}

// What the other clients send is received as it was meant: bodies byte by byte, our own spelling of the attributes, and native properties.
func TestInteropAMQPTheirs(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		bus := amqpOpen(t, amqpOptions(t, b))
		topic := amqpTopic(t, bus, inOrder)
		cases := append(amqpCases(), amqpCase{
			// As programs without any idea of CloudEvents do it. Expiration is relative: it is a deadline by the timestamp.
			ours: stagebus.Message{
				Body: []byte(document), ID: "m-1", Type: "tokens", ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: "c-1",
				ReplyTo: "amq.gen-x", Priority: 9, Time: time.Unix(1625512731, 0), Deadline: time.Unix(1625512731+60, 0),
			},
			wire: amqpLine{Body: []byte(document), Properties: map[string]any{
				"message_id": "m-1", "type": "tokens", "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "c-1",
				"reply_to": "amq.gen-x", "priority": 9, "timestamp": 1625512731, "expiration": "60000", "app_id": "tutorial", "user_id": "guest", "delivery_mode": 1,
			}},
		})
		var lines []amqpLine
		for _, c := range cases {
			lines = append(lines, c.wire)
		}
		publishLines(t, p, lines, pikaURL(t, b.URL()), "", topic)
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
		for i, d := range amqpReceive(t, c, len(cases)) {
			if p.name == withAioPika.name && cases[i].ours.ID == "" { // it gives each message an ID
				if len(d.ID) != 32 {
					t.Errorf("message %d: ID %q", i, d.ID)
				}
				d.ID = ""
			}
			if diff := differ(d.Message, cases[i].ours); diff != "" || d.Err != nil || d.Topic != topic {
				t.Errorf("message %d: %v %s", i, d.Err, diff)
			}
			amqpSettle(t, c, stagebus.Done, d)
		}
	})
}

// Typed headers of the other clients are read as strings, and get their types back when the message is sent on.
func TestInteropAMQPHeaderTypes(t *testing.T) {
	headers := map[string]any{
		"small": 3, "big": int64(1) << 40, "yes": true, "half": 0.5, "none": nil, "text": "grün", "list": []any{"x", "y"}, "mixed": []any{1, "b", nil},
		"when": map[string]any{"time": 1625512731}, "raw": map[string]any{"bytes": []byte{0, 255}}, "ascii": map[string]any{"bytes": []byte("x")},
		"nested": map[string]any{"table": map[string]any{"a": 1, "b": map[string]any{"table": map[string]any{"c": "d"}}}},
	}
	strs := map[string]string{
		"small": "3", "big": "1099511627776", "yes": "true", "half": "0.5", "none": "", "text": "grün", "when": "2021-07-05T19:18:51Z", "raw": "\x00\xff", "ascii": "x",
	}
	b := broker.Require(t, broker.AMQP)
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		bus := amqpOpen(t, amqpOptions(t, b))
		from, to := amqpTopic(t, bus, stagebus.TopicSpec{}), amqpTopic(t, bus, stagebus.TopicSpec{})
		headers := with(headers, "", nil)
		if p.name == withPika.name { // it can't write one
			delete(headers, "half")
		}
		publishLines(t, p, []amqpLine{{Body: []byte("x"), Headers: headers}}, pikaURL(t, b.URL()), "", from)

		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{from}})
		d := amqpReceive(t, c, 1)[0]
		for name, want := range strs {
			if got, ok := d.Headers.Get(name); headers[name] != nil && !ok || got != want && ok {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		m := d.Message
		m.Topic, m.ID = to, "" // aio-pika gives each message an ID
		if err := stagebus.Send(amqpContext(t), amqpProducer(t, bus, stagebus.ProducerOptions{}), m); err != nil {
			t.Fatal(err)
		}
		amqpSettle(t, c, stagebus.Done, d)
		got := consumeLines[amqpLine](t, p, 1, pikaURL(t, b.URL()), to)[0]
		if g, w := fmt.Sprint(amqpLine{Headers: got.Headers}), fmt.Sprint(amqpLine{Headers: headers}); g != w {
			t.Errorf("got\n%s, want\n%s", g, w)
		}
	})
}

// One queue gives each of its messages to one of those who consume it, ours and theirs.
func TestInteropAMQPSharedQueue(t *testing.T) {
	const each = 100
	b := broker.Require(t, broker.AMQP)
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		bus := amqpOpen(t, amqpOptions(t, b))
		topic := amqpTopic(t, bus, stagebus.TopicSpec{})
		var ms []stagebus.Message
		for i := range 2 * each {
			ms = append(ms, stagebus.Message{Topic: topic, Body: fmt.Append(nil, i)})
		}
		if err := stagebus.Send(amqpContext(t), amqpProducer(t, bus, stagebus.ProducerOptions{}), ms...); err != nil {
			t.Fatal(err)
		}
		theirs := p.start(t, "consume", pikaURL(t, b.URL()), topic, fmt.Sprint(each))
		lines := []string{theirs.next(t)} // it is at work when ours begins
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Prefetch: 10})
		seen := map[string]int{}
		for range each {
			d := amqpReceive(t, c, 1)[0]
			amqpSettle(t, c, stagebus.Done, d)
			seen[string(d.Body)]++
		}
		if err := c.Close(amqpContext(t)); err != nil {
			t.Fatal(err)
		}
		for len(lines) < each {
			lines = append(lines, theirs.next(t))
		}
		theirs.end(t)
		for _, line := range lines {
			var l amqpLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			seen[string(l.Body)]++
		}
		if len(seen) != 2*each {
			t.Errorf("%d of %d messages were seen", len(seen), 2*each)
		}
		for body, n := range seen {
			if n != 1 {
				t.Errorf("message %s was seen %d times", strings.TrimSpace(body), n)
			}
		}
	})
}
