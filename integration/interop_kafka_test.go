package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

var kafkaPeers = []peer{withKafkaPython, withConfluent, withKafkaJava}

// kafkaLine is a record as programs of Kafka clients write and read it. nil and empty differ.
type kafkaLine struct {
	Key       []byte       `json:"key"`
	Value     []byte       `json:"value"`
	Headers   []wireHeader `json:"headers,omitempty"`
	Timestamp int64        `json:"timestamp,omitempty"` // 0 leaves it to the client
	Partition *int32       `json:"partition,omitempty"`

	Assigned []int32 `json:"assigned,omitempty"` // said by the member of a group instead of a record
	Commit   *bool   `json:"commit,omitempty"`   // told to a transactional producer instead of a record
}

type wireHeader struct {
	name  string
	value []byte
}

func (h wireHeader) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.name, h.value}) }

func (h *wireHeader) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&h.name, &h.value})
}

func (l kafkaLine) String() string {
	return fmt.Sprintf("key %q (nil: %v), value %d bytes (nil: %v) %.60q, headers %q, timestamp %d",
		l.Key, l.Key == nil, len(l.Value), l.Value == nil, l.Value, l.Headers, l.Timestamp)
}

// kafkaCase is one message in both forms, ours and the one that others see.
type kafkaCase struct {
	ours stagebus.Message
	wire kafkaLine
	text bool // no bytes that a shell couldn't give to a command
}

func kafkaCases() []kafkaCase {
	at := time.Date(2021, 7, 5, 19, 18, 51, 123456789, time.UTC)
	deadline := at.Add(time.Hour)
	same := func(key, body []byte, text bool) kafkaCase {
		return kafkaCase{stagebus.Message{Key: key, Body: body}, kafkaLine{Key: key, Value: body}, text}
	}
	return []kafkaCase{
		same(nil, []byte(document), true),
		same([]byte("k"), everyByte, true),
		same([]byte("empty"), []byte{}, true),
		same([]byte("k"), largeBody, true),
		same([]byte("tombstone"), nil, true),
		same(everyByte, []byte("x"), false),
		same([]byte{}, []byte("x"), false),
		{
			ours: stagebus.Message{Key: []byte("k"), Body: []byte("x"), Headers: stagebus.Headers{
				{Key: "b", Value: "1"}, {Key: "a", Value: "\x00\xff"}, {Key: "b", Value: ""}, {Key: "größe", Value: "grün"}}},
			wire: kafkaLine{Key: []byte("k"), Value: []byte("x"), Headers: []wireHeader{{"b", []byte("1")}, {"a", []byte{0, 255}}, {"b", []byte{}}, {"größe", []byte("grün")}}},
		},
		{
			text: true,
			ours: stagebus.Message{
				Key: []byte("user-7"), Body: []byte(document), Headers: stagebus.Headers{{Key: "zone", Value: "grün"}, {Key: "ce_sequence", Value: "7"}, {Key: "zone", Value: "eu"}},
				Time: at, ID: "0199", Source: "/stage/preprocess", Type: "io.example.tokens.v1", Subject: "shard/7", ContentType: "application/json",
				ContentEncoding: "identity", CorrelationID: "req-1", ReplyTo: "replies", Audience: "llm", Deadline: deadline, Priority: 3,
			},
			wire: kafkaLine{
				Key: []byte("user-7"), Value: []byte(document), Timestamp: at.UnixMilli(), Headers: []wireHeader{
					{"ce_specversion", []byte("1.0")}, {"ce_id", []byte("0199")}, {"ce_source", []byte("/stage/preprocess")}, {"ce_type", []byte("io.example.tokens.v1")},
					{"ce_subject", []byte("shard/7")}, {"ce_time", []byte("2021-07-05T19:18:51.123456789Z")}, {"content-type", []byte("application/json")},
					{"content-encoding", []byte("identity")}, {"ce_correlationid", []byte("req-1")}, {"ce_replyto", []byte("replies")}, {"ce_audience", []byte("llm")},
					{"ce_expirytime", []byte("2021-07-05T20:18:51.123456789Z")}, {"ce_priority", []byte("3")},
					{"zone", []byte("grün")}, {"ce_sequence", []byte("7")}, {"zone", []byte("eu")},
				},
			},
		},
	}
}

// What we send arrives at the other clients byte by byte, with its attributes under the names that DESIGN.md documents.
func TestInteropKafkaOurs(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	bus := kafkaShared(t, nil)
	topic, text := kafkaTopic(t, bus, 1), kafkaTopic(t, bus, 1)
	cases := kafkaCases()
	start := time.Now()
	producer, err := bus.Producer(kafkaContext(t), stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var texts []kafkaCase
	for _, c := range cases {
		to := []string{topic}
		if c.text {
			to, texts = append(to, text), append(texts, c)
		}
		for _, name := range to {
			c.ours.Topic = name
			if err := stagebus.Send(kafkaContext(t), producer, c.ours); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(t *testing.T, got []kafkaLine, cases []kafkaCase) {
		t.Helper()
		for i, want := range cases {
			got, want := got[i], want.wire
			if want.Timestamp == 0 { // when it was sent
				if at := time.UnixMilli(got.Timestamp); at.Before(start.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
					t.Errorf("message %d: timestamp %v", i, at)
				}
				got.Timestamp = 0
			}
			if got.String() != want.String() || !bytes.Equal(got.Value, want.Value) {
				t.Errorf("message %d: got\n%v, want\n%v", i, got, want)
			}
		}
	}
	eachPeer(t, kafkaPeers, func(t *testing.T, p peer) {
		check(t, consumeLines[kafkaLine](t, p, len(cases), b.Addr(), topic), cases)
	})
	t.Run("kcat", func(t *testing.T) { check(t, kcatConsume(t, b, text, len(texts)), texts) })
}

// What the other clients send is received as it was meant.
func TestInteropKafkaTheirs(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	receive := func(t *testing.T, bus *stagebus.Broker, topic string, cases []kafkaCase) {
		t.Helper()
		c := kafkaConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Assigned})
		for i, d := range kafkaReceive(t, c, len(cases)) {
			want := cases[i].ours
			if want.Time.IsZero() {
				if d.Time.IsZero() {
					t.Errorf("message %d has no time", i)
				}
				d.Time = time.Time{}
			}
			if diff := differ(d.Message, want); diff != "" || d.Err != nil || d.Topic != topic || d.Position.Offset != int64(i) {
				t.Errorf("message %d: %v, %v %s", i, d.Position, d.Err, diff)
			}
			if err := c.Settle(kafkaContext(t), stagebus.Done, d.Token); err != nil {
				t.Error(err)
			}
		}
	}
	eachPeer(t, kafkaPeers, func(t *testing.T, p peer) {
		bus := kafkaShared(t, nil)
		topic := kafkaTopic(t, bus, 1)
		cases := append(kafkaCases(), kafkaCase{
			ours: stagebus.Message{Body: []byte("x"), Time: time.UnixMilli(1625512731123)}, wire: kafkaLine{Value: []byte("x"), Timestamp: 1625512731123},
		})
		if p.name != withKafkaPython.name { // it refuses to send one
			cases = append(cases, kafkaCase{
				ours: stagebus.Message{Headers: stagebus.Headers{{Key: "null"}}, Body: []byte("x")},
				wire: kafkaLine{Headers: []wireHeader{{"null", nil}}, Value: []byte("x")},
			})
		}
		var lines []kafkaLine
		for _, c := range cases {
			lines = append(lines, c.wire)
		}
		publishLines(t, p, lines, b.Addr(), topic)
		receive(t, bus, topic, cases)
	})
	t.Run("kcat", func(t *testing.T) {
		bus := kafkaShared(t, nil)
		topic := kafkaTopic(t, bus, 1)
		var cases []kafkaCase
		for _, c := range kafkaCases() {
			if c.text {
				kcatPublish(t, b, topic, c.wire)
				cases = append(cases, c)
			}
		}
		receive(t, bus, topic, cases)
	})
}

// kcatPublish sends one record. kcat sends no empty file: an empty value comes after a key on its standard input, and is null with -Z.
func kcatPublish(t *testing.T, b *broker.Broker, topic string, l kafkaLine, options ...string) {
	t.Helper()
	needCommand(t, "kcat")
	args := append([]string{"-P", "-b", b.Addr(), "-t", topic}, options...)
	for _, h := range l.Headers {
		args = append(args, "-H", h.name+"="+string(h.value))
	}
	stdin := ""
	if len(l.Value) > 0 {
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, l.Value, 0o600); err != nil {
			t.Fatal(err)
		}
		if l.Key != nil {
			args = append(args, "-k", string(l.Key))
		}
		args = append(args, file)
	} else {
		stdin = string(l.Key) + ":\n"
		args = append(args, "-K:")
		if l.Value == nil {
			args = append(args, "-Z")
		}
	}
	if r := cliRun(t, stdin, os.Environ(), "kcat", args...); r.code != 0 {
		t.Fatalf("kcat %v: %+v", args, r)
	}
}

// kcatConsume receives n records, whose headers are text without a comma.
func kcatConsume(t *testing.T, b *broker.Broker, topic string, n int) (lines []kafkaLine) {
	t.Helper()
	needCommand(t, "kcat")
	// Lengths are -1 for null.
	r := cliRun(t, "", os.Environ(), "kcat", "-C", "-b", b.Addr(), "-t", topic, "-o", "beginning", "-c", fmt.Sprint(n), "-f", "%T %p %K %S %k%s%h\n")
	if r.code != 0 {
		t.Fatalf("kcat: %+v", r)
	}
	rest := []byte(r.out)
	cut := func(n int) []byte {
		if n < 0 {
			return nil
		}
		b := rest[:n:n]
		rest = rest[n:]
		return b
	}
	for range n {
		var l kafkaLine
		var partition int32
		var key, value int
		if _, err := fmt.Sscanf(string(rest[:min(len(rest), 100)]), "%d %d %d %d ", &l.Timestamp, &partition, &key, &value); err != nil {
			t.Fatalf("kcat wrote %.100q: %v", rest, err)
		}
		for range 4 {
			_, rest, _ = bytes.Cut(rest, []byte(" "))
		}
		l.Partition, l.Key, l.Value = &partition, cut(key), cut(value)
		headers, after, _ := bytes.Cut(rest, []byte("\n"))
		rest = after
		for h := range strings.SplitSeq(string(headers), ",") {
			if name, v, ok := strings.Cut(h, "="); ok {
				l.Headers = append(l.Headers, wireHeader{name, []byte(v)})
			}
		}
		lines = append(lines, l)
	}
	return lines
}
