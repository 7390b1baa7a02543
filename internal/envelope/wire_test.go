package envelope

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// The two ways of a message through a broker, as the adapters do it.

func kafkaHeaders(m *stagebus.Message, meta Meta) []stagebus.Header {
	var hs []stagebus.Header
	EncodeKafka(m, meta, func(name, value string) { hs = append(hs, stagebus.Header{Key: name, Value: value}) })
	return hs
}

func readKafka(m *stagebus.Message, hs []stagebus.Header) (Meta, error) {
	return DecodeKafka(m, len(hs), func(i int) (string, []byte) { return hs[i].Key, []byte(hs[i].Value) })
}

func viaKafka(m stagebus.Message, meta Meta) (stagebus.Message, Meta, error) {
	out := stagebus.Message{Topic: m.Topic, Key: m.Key, Body: m.Body}
	if !m.Time.IsZero() {
		out.Time = time.UnixMilli(m.Time.UnixMilli()) // what the record keeps
	}
	got, err := readKafka(&out, kafkaHeaders(&m, meta))
	return out, got, err
}

// table091 is what arrives of a header table: no order but that of names, which the adapter makes, arrays in their order.
func table091(p Properties) Properties {
	p.Headers = slices.Clone(p.Headers)
	slices.SortStableFunc(p.Headers, byKey)
	return p
}

func viaAMQP(m stagebus.Message, meta Meta, now time.Time) (stagebus.Message, Meta, error) {
	out := stagebus.Message{Topic: m.Topic, Body: []byte(string(m.Body))}
	got, err := DecodeAMQP(&out, table091(EncodeAMQP(&m, meta, now)))
	return out, got, err
}

// same reports the first difference that a user could see.
func same(a, b stagebus.Message) string {
	switch {
	case !bytes.Equal(a.Key, b.Key) || (a.Key == nil) != (b.Key == nil):
		return fmt.Sprintf("Key %q (nil %v), %q (nil %v)", a.Key, a.Key == nil, b.Key, b.Key == nil)
	case !bytes.Equal(a.Body, b.Body) || (a.Body == nil) != (b.Body == nil):
		return fmt.Sprintf("Body %q (nil %v), %q (nil %v)", a.Body, a.Body == nil, b.Body, b.Body == nil)
	case !slices.Equal(a.Headers, b.Headers):
		return fmt.Sprintf("Headers %q, %q", a.Headers, b.Headers)
	case !a.Time.Equal(b.Time):
		return fmt.Sprintf("Time %v, %v", a.Time, b.Time)
	case !a.Deadline.Equal(b.Deadline):
		return fmt.Sprintf("Deadline %v, %v", a.Deadline, b.Deadline)
	case a.Priority != b.Priority:
		return fmt.Sprintf("Priority %d, %d", a.Priority, b.Priority)
	}
	for k := range kinds {
		if f := table[k].field; f != nil && *f(&a) != *f(&b) {
			return fmt.Sprintf("%s %q, %q", table[k].kafka, *f(&a), *f(&b))
		}
	}
	return ""
}

var (
	noon = time.Date(2026, 11, 5, 12, 0, 0, 123456789, time.UTC)
	now  = noon.Add(250 * time.Millisecond)
)

func full() stagebus.Message {
	return stagebus.Message{
		Topic: "llm.infer", Key: []byte("user\x00\xff7"), Body: []byte(`{"id": 1}`),
		Headers: stagebus.Headers{
			{Key: "zone", Value: "eu"}, {Key: "ce_sequence", Value: "0007"}, {Key: "tag", Value: ""}, {Key: "a,b%", Value: "\x00\xff"}, {Key: "tag", Value: "second"},
		},
		Time: noon, ID: "0199", Source: "/stage/preprocess", Type: "io.example.tokens.v1", Subject: "shard/7",
		ContentType: "application/json", ContentEncoding: "zstd, aes256gcm", CorrelationID: "req-1", ReplyTo: "queue:replies",
		Audience: "llm", Deadline: noon.Add(30*time.Second + time.Nanosecond), Priority: 9,
	}
}

// A message with some attributes is no CloudEvent, and must not claim to be one: strict readers refuse an event without id, source or type.
func TestSpecversionOnlyOnWholeEvents(t *testing.T) {
	for _, c := range []struct {
		m    stagebus.Message
		want bool
	}{
		{stagebus.Message{ContentType: "text/plain"}, false},
		{stagebus.Message{ID: "1", Source: "/s"}, false},
		{stagebus.Message{ID: "1", Source: "/s", Type: "t"}, true},
	} {
		kafka := slices.ContainsFunc(kafkaHeaders(&c.m, Meta{}), func(h stagebus.Header) bool { return h.Key == "ce_specversion" })
		amqp := slices.ContainsFunc(EncodeAMQP(&c.m, Meta{}, now).Headers, func(h stagebus.Header) bool { return h.Key == "cloudEvents_specversion" })
		if kafka != c.want || amqp != c.want {
			t.Errorf("%+v: specversion on Kafka %v, on AMQP %v", c.m, kafka, amqp)
		}
	}
}

func TestGoldenKafka(t *testing.T) {
	m := full()
	got := kafkaHeaders(&m, Meta{Attempt: 3, Due: noon})
	want := []stagebus.Header{
		{Key: "ce_specversion", Value: "1.0"},
		{Key: "ce_id", Value: "0199"},
		{Key: "ce_source", Value: "/stage/preprocess"},
		{Key: "ce_type", Value: "io.example.tokens.v1"},
		{Key: "ce_subject", Value: "shard/7"},
		{Key: "ce_time", Value: "2026-11-05T12:00:00.123456789Z"},
		{Key: "content-type", Value: "application/json"},
		{Key: "content-encoding", Value: "zstd, aes256gcm"},
		{Key: "ce_correlationid", Value: "req-1"},
		{Key: "ce_replyto", Value: "queue:replies"},
		{Key: "ce_audience", Value: "llm"},
		{Key: "ce_expirytime", Value: "2026-11-05T12:00:30.12345679Z"},
		{Key: "ce_priority", Value: "9"},
		{Key: "stagebus-attempt", Value: "3"},
		{Key: "stagebus-due", Value: "1793880000123"},
		{Key: "zone", Value: "eu"},
		{Key: "ce_sequence", Value: "0007"},
		{Key: "tag", Value: ""},
		{Key: "a,b%", Value: "\x00\xff"},
		{Key: "tag", Value: "second"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestGoldenAMQP(t *testing.T) {
	m := full()
	got := EncodeAMQP(&m, Meta{Attempt: 3}, now)
	want := []stagebus.Header{
		{Key: "cloudEvents_specversion", Value: "1.0"},
		{Key: "cloudEvents_id", Value: "0199"},
		{Key: "cloudEvents_source", Value: "/stage/preprocess"},
		{Key: "cloudEvents_type", Value: "io.example.tokens.v1"},
		{Key: "cloudEvents_subject", Value: "shard/7"},
		{Key: "cloudEvents_time", Value: "2026-11-05T12:00:00.123456789Z"},
		{Key: "cloudEvents_correlationid", Value: "req-1"},
		{Key: "cloudEvents_audience", Value: "llm"},
		{Key: "cloudEvents_expirytime", Value: "2026-11-05T12:00:30.12345679Z"},
		{Key: "cloudEvents_partitionkey", Value: "user\x00\xff7"},
		{Key: "stagebus-attempt", Value: "3"},
		{Key: "stagebus-order", Value: "zone,ce_sequence,tag,a%2Cb%25,tag"},
		{Key: "a,b%", Value: "\x00\xff"},
		{Key: "cloudEvents_sequence", Value: "0007"},
		{Key: "tag", Value: ""},
		{Key: "tag", Value: "second"},
		{Key: "zone", Value: "eu"},
	}
	if !slices.Equal(got.Headers, want) {
		t.Errorf("got\n%q\nwant\n%q", got.Headers, want)
	}
	got.Headers = nil
	native := Properties{MessageID: "0199", Type: "io.example.tokens.v1", ContentType: "application/json", ContentEncoding: "zstd, aes256gcm",
		CorrelationID: "req-1", ReplyTo: "queue:replies", Expiration: "29751", Timestamp: noon.Truncate(time.Second), Priority: 9}
	if fmt.Sprint(got) != fmt.Sprint(native) {
		t.Errorf("got %v\nwant %v", got, native)
	}
}

func TestBareMessageIsWhatPikaWouldSend(t *testing.T) {
	m := stagebus.Message{Body: []byte("x"), Time: noon, Headers: stagebus.Headers{{Key: "a", Value: "1"}}}
	if got := kafkaHeaders(&m, Meta{Attempt: 1}); !slices.Equal(got, m.Headers) {
		t.Errorf("Kafka: %q", got)
	}
	p := EncodeAMQP(&m, Meta{}, now)
	if !slices.Equal(p.Headers, m.Headers) || !p.Timestamp.Equal(noon.Truncate(time.Second)) || p.Expiration != "" {
		t.Errorf("AMQP: %+v", p)
	}
	m.Key = []byte{}
	p = EncodeAMQP(&m, Meta{}, now)
	if want := []stagebus.Header{{Key: "cloudEvents_partitionkey"}, {Key: "a", Value: "1"}}; !slices.Equal(p.Headers, want) {
		t.Errorf("AMQP with an empty key: %q", p.Headers)
	}
}

func TestExpiration(t *testing.T) {
	for _, c := range []struct {
		deadline time.Time
		want     string
	}{
		{time.Time{}, ""},
		{now, "0"},
		{now.Add(-time.Hour), "0"},
		{time.Unix(-1<<61, 0), "0"},
		{now.Add(1), "1"}, // up, never early
		{now.Add(time.Second), "1000"},
		{now.Add(maxExpiration * time.Millisecond), "4294967295"},
		{now.Add(maxExpiration*time.Millisecond + 1), ""}, // RabbitMQ would close the channel
		{time.Unix(1<<61, 0), ""},
	} {
		if got := expiration(c.deadline, now); got != c.want {
			t.Errorf("%v: %q, want %q", c.deadline, got, c.want)
		}
	}
}
