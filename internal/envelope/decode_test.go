package envelope

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func list(kv ...string) []stagebus.Header {
	var hs []stagebus.Header
	for i := 0; i < len(kv); i += 2 {
		hs = append(hs, stagebus.Header{Key: kv[i], Value: kv[i+1]})
	}
	return hs
}

// Every spelling of every attribute that has one, on both brokers.
func TestEverySpelling(t *testing.T) {
	value := map[kind]string{timeOf: "2026-11-05T12:00:00.123456789Z", expiryTime: "2026-11-05T13:00:00+01:00", priority: "7"}
	want := stagebus.Message{Key: []byte("v"), Body: []byte{}, ID: "v", Source: "v", Type: "v", Subject: "v", ContentType: "v",
		CorrelationID: "v", ReplyTo: "v", Audience: "v", Time: noon, Deadline: noon.Truncate(time.Second), Priority: 7}
	for _, prefix := range []string{"ce_", "ce-", "CE-", "Ce_", "cloudEvents_", "cloudevents_", "cloudEvents:", "CLOUDEVENTS:"} {
		for _, change := range []func(string) string{strings.ToLower, strings.ToUpper} {
			var hs []stagebus.Header
			for k := range kinds {
				v := value[k]
				if v == "" {
					v = "v"
				}
				if n := table[k].name; n != "" {
					hs = append(hs, stagebus.Header{Key: prefix + change(n), Value: v})
				}
			}
			got := stagebus.Message{Body: []byte{}}
			_, err := readKafka(&got, hs)
			if diff := same(got, want); diff != "" || err != nil {
				t.Errorf("%s on Kafka: %s %v", prefix, diff, err)
			}
			got = stagebus.Message{}
			_, err = DecodeAMQP(&got, table091(Properties{Headers: hs}))
			if diff := same(got, want); diff != "" || err != nil {
				t.Errorf("%s on AMQP: %s %v", prefix, diff, err)
			}
		}
	}
}

func TestNativePropertiesAlone(t *testing.T) {
	p := Properties{MessageID: "i", Type: "t", ContentType: "c", ContentEncoding: "e", CorrelationID: "o", ReplyTo: "r", Expiration: "1500",
		Timestamp: time.Unix(1793880000, 0), Priority: 3}
	want := stagebus.Message{Body: []byte{}, ID: "i", Type: "t", ContentType: "c", ContentEncoding: "e", CorrelationID: "o", ReplyTo: "r",
		Time: time.Unix(1793880000, 0), Deadline: time.UnixMilli(1793880001500), Priority: 3}
	var got stagebus.Message
	_, err := DecodeAMQP(&got, p)
	if diff := same(got, want); diff != "" || err != nil {
		t.Error(diff, err)
	}

	p.Headers = list("cloudEvents_id", "I", "cloudEvents_type", "", "cloudEvents_time", "2026-11-05T12:00:00.123456789Z", "content-type", "C", "ce_priority", "9")
	want.ID, want.Time, want.ContentType, want.Priority = "I", noon, "C", 9 // an empty header says nothing
	got = stagebus.Message{}
	_, err = DecodeAMQP(&got, p)
	if diff := same(got, want); diff != "" || err != nil {
		t.Error(diff, err)
	}

	got = stagebus.Message{}
	if _, err = DecodeAMQP(&got, Properties{Expiration: "1500"}); err != nil || !got.Deadline.IsZero() {
		t.Errorf("1.5 s from an unknown time: %v %v", got.Deadline, err)
	}
}

func TestKnative(t *testing.T) {
	hs := list("specversion", "1.0", "id", "i", "Type", "t", "source", "s", "time", "2026-11-05T12:00:00Z", "dataschema", "d", "content-type", "c",
		"traceparent", "p", "priority", "high", "partitionkey", "k")
	want := stagebus.Message{Key: []byte("k"), Body: []byte{}, ID: "i", Type: "t", Source: "s", Time: noon.Truncate(time.Second), ContentType: "c",
		Headers: list("ce_dataschema", "d", "priority", "high", "traceparent", "p")}
	var got stagebus.Message
	_, err := DecodeAMQP(&got, table091(Properties{Headers: hs}))
	if diff := same(got, want); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, other := range [][]stagebus.Header{list("id", "i"), list("specversion", "7", "id", "i"), list("cloudEvents_specversion", "1.0", "id", "i", "specversion", "1.0")} {
		var m stagebus.Message
		if _, err := DecodeAMQP(&m, Properties{Headers: other}); err != nil || m.ID != "" {
			t.Errorf("%q: id is the application's own: %q %v", other, m.ID, err)
		}
	}
}

func TestExtensionsGetOneName(t *testing.T) {
	hs := list("CE-TraceParent", "1", "ce_Own", "2", "cloudEvents_Own2", "3", "cloudEvents:Seq", "4")
	want := list("ce_traceparent", "1", "ce_Own", "2", "ce_Own2", "3", "ce_seq", "4")
	var m stagebus.Message
	if _, err := readKafka(&m, hs); err != nil || !slices.Equal(m.Headers, want) {
		t.Errorf("%q %v", m.Headers, err)
	}
}

func TestBadHeadersAreNamed(t *testing.T) {
	for _, c := range []struct {
		hs   []stagebus.Header
		want string // in the error
	}{
		{list("ce_id", "1", "ce_id", "2"), `"ce_id"`},
		{list("ce_id", "1", "CE_ID", "1"), `"CE_ID"`},
		{list("ce_id", "1", "cloudEvents:id", "2"), `"cloudEvents:id"`},
		{list("content-type", "a", "Content-Type", "b"), `"Content-Type"`},
		{list("content-type", "a", "ce_datacontenttype", "b"), `"ce_datacontenttype"`},
		{list("ce_time", "yesterday"), `"ce_time"`},
		{list("ce_time", "2026-11-05 12:00:00"), `"ce_time"`},
		{list("ce_expirytime", "1793880000"), `"ce_expirytime"`},
		{list("ce_priority", "256"), `"ce_priority"`},
		{list("ce_priority", "-1"), `"ce_priority"`},
		{list("stagebus-attempt", "0"), `"stagebus-attempt"`},
		{list("stagebus-attempt", "99999999999999999999"), `"stagebus-attempt"`},
		{list("stagebus-due", "soon"), `"stagebus-due"`},
		{list("stagebus-nil", ""), `"stagebus-nil"`},
		{list("ce_time", strings.Repeat("\xff", 1<<20)), `"ce_time"`},
	} {
		for _, amqp := range []bool{false, true} {
			m := stagebus.Message{Body: []byte("kept"), Time: noon}
			var err error
			hs := append(c.hs, list("ce_subject", "read all the same", "own", "x")...)
			if amqp {
				_, err = DecodeAMQP(&m, table091(Properties{Headers: hs, Timestamp: noon}))
			} else {
				_, err = readKafka(&m, hs)
			}
			var invalid *stagebus.InvalidError
			if !errors.As(err, &invalid) || !errors.Is(err, stagebus.ErrInvalid) || len(err.Error()) > 400 {
				t.Fatalf("%q: %v", c.hs, err)
			}
			if !amqp && !strings.Contains(invalid.Field, c.want) {
				t.Errorf("%q: field %s", c.hs, invalid.Field)
			}
			if m.Subject == "" || !slices.Equal(m.Headers, list("own", "x")) || string(m.Body) != "kept" || !m.Time.Equal(noon) {
				t.Errorf("%q: the rest was lost: %+v", c.hs, m)
			}
		}
	}
	var m stagebus.Message
	if _, err := DecodeAMQP(&m, Properties{Timestamp: noon, Expiration: "abc", MessageID: "1"}); err == nil || m.ID != "1" {
		t.Errorf("expiration abc: %v, id %q", err, m.ID)
	}
}

func TestSpellingsThatAgree(t *testing.T) {
	var m stagebus.Message
	if _, err := readKafka(&m, list("ce_id", "1", "cloudEvents_id", "1", "content-type", "a", "ce_datacontenttype", "a")); err != nil || m.ID != "1" || m.ContentType != "a" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestKafkaKeyOfTheRecordWins(t *testing.T) {
	for _, c := range []struct{ key, want []byte }{{nil, []byte("h")}, {[]byte{}, []byte{}}, {[]byte("r"), []byte("r")}} {
		m := stagebus.Message{Key: c.key}
		if _, err := readKafka(&m, list("ce_partitionkey", "h")); err != nil || string(m.Key) != string(c.want) {
			t.Errorf("record %q: %q %v", c.key, m.Key, err)
		}
	}
}

// What the encoder writes for attributes can't be sent as a header, and what can be sent is never taken for an attribute.
func TestReservedAgreesWithTheTable(t *testing.T) {
	for k := range kinds {
		for _, name := range []string{table[k].kafka, table[k].amqp} {
			if name != "" && !stagebus.Reserved(name) {
				t.Errorf("%q is written and not reserved", name)
			}
		}
		for _, p := range prefixes {
			if n := table[k].name; n != "" && !stagebus.Reserved(p+n) {
				t.Errorf("%q is read and not reserved", p+n)
			}
		}
	}
	for name := range byWhole {
		if !stagebus.Reserved(name) || !stagebus.Reserved(strings.ToUpper(name)) {
			t.Errorf("%q is read and not reserved", name)
		}
	}
	for _, name := range []string{"ce-x", "CE_x", "Ce-X", "cloudEvents_x", "cloudEvents:x"} {
		if !stagebus.Reserved(name) {
			t.Errorf("%q comes back under another name and is not reserved", name)
		}
	}
}
