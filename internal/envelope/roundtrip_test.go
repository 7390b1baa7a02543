package envelope

import (
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func checkBoth(t *testing.T, name string, m stagebus.Message, meta Meta) {
	t.Helper()
	ways := []struct {
		broker string
		send   func() (stagebus.Message, Meta, error)
	}{
		{"kafka", func() (stagebus.Message, Meta, error) { return viaKafka(m, meta) }},
		{"amqp", func() (stagebus.Message, Meta, error) { return viaAMQP(m, meta, now) }},
	}
	for _, w := range ways {
		got, gotMeta, err := w.send()
		if err != nil {
			t.Errorf("%s, %s: %v", w.broker, name, err)
		}
		want := m
		if bare(&m) { // keeps only what the broker does
			unit := time.Millisecond
			if w.broker == "amqp" {
				unit = time.Second
			}
			want.Time = m.Time.Truncate(unit)
		}
		if diff := same(got, want); diff != "" {
			t.Errorf("%s, %s: %s", w.broker, name, diff)
		}
		if gotMeta.Attempt != meta.Attempt || !gotMeta.Due.Equal(meta.Due) {
			t.Errorf("%s, %s: %+v, want %+v", w.broker, name, gotMeta, meta)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	headers := func(kv ...string) stagebus.Message {
		m := stagebus.Message{Body: []byte("b")}
		for i := 0; i < len(kv); i += 2 {
			m.Headers = append(m.Headers, stagebus.Header{Key: kv[i], Value: kv[i+1]})
		}
		return m
	}
	zone := full()
	zone.Time = noon.In(time.FixedZone("", 3600))
	long := strings.Repeat("n", 252)
	for name, m := range map[string]stagebus.Message{
		"zero":                      {},
		"empty body and key":        {Key: []byte{}, Body: []byte{}},
		"full":                      full(),
		"time zone":                 zone,
		"time":                      {Time: noon, Body: []byte{}},
		"tombstone with attributes": {Key: []byte("k"), ID: "1"},
		"binary":                    headers("a", "\x00\xff\xfe", "b", ""),
		"duplicates apart":          headers("a", "1", "b", "2", "a", "3"),
		"duplicates":                headers("a", "2", "a", "1"),
		"unsorted":                  headers("b", "1", "a", "2"),
		"odd names":                 headers("%2C", "1", ",", "2", "%", "3", "ce_", "4", "\x00", "5", "Ünï", "6", "ce", "7", "c", "8"),
		"case":                      headers("B", "1", "b", "2", "a", "3", "A", "4"),
		"extension":                 headers("ce_Foo", "1", "ce_foo", "2", "ce_foo", "3", "cf", "4"),
		"extension too long":        headers("ce_"+long, "1"),
		"looks like Knative":        headers("specversion", "1.0", "id", "mine", "time", "whenever"),
		"letters that fold":         headers("ce_partition\u212aey", "1", "content-\u212aind", "2"),
		"dead letter":               headers(stagebus.HeaderDeadReason, "r", stagebus.HeaderDeadAttempt, "1", "stagebus-amqp-types", "x=I"),
	} {
		checkBoth(t, name, m, Meta{})
		checkBoth(t, name, m, Meta{Attempt: 2, Due: time.UnixMilli(1793880000123)})
		for _, h := range m.Headers {
			if stagebus.Reserved(h.Key) {
				t.Errorf("%s: %q is reserved", name, h.Key)
			}
		}
	}
}

// Each attribute alone: none depends on another, on either broker.
func TestEachAttributeAlone(t *testing.T) {
	for k := range kinds {
		if f := table[k].field; f != nil {
			m := stagebus.Message{Time: noon, Body: []byte("b")}
			*f(&m) = "v"
			checkBoth(t, table[k].kafka, m, Meta{})
		}
	}
	checkBoth(t, "deadline", stagebus.Message{Time: noon, Deadline: noon}, Meta{})
	checkBoth(t, "priority", stagebus.Message{Time: noon, Priority: 255}, Meta{})
}

// RFC 3339 has four digits for the year: what it can't say isn't written, rather than written so that nobody can read it.
func TestYearsThatRFC3339CannotSay(t *testing.T) {
	for _, odd := range []time.Time{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)} {
		m := stagebus.Message{ID: "1", Time: odd, Deadline: odd}
		for _, h := range append(kafkaHeaders(&m, Meta{}), EncodeAMQP(&m, Meta{}, now).Headers...) {
			if strings.HasSuffix(h.Key, "time") {
				t.Errorf("%v is written as %q", odd, h)
			}
		}
	}
}

func TestOrderSurvivesWhatOthersAddAndRemove(t *testing.T) {
	m := stagebus.Message{Headers: stagebus.Headers{{Key: "z", Value: "1"}, {Key: "m", Value: "2"}, {Key: "a", Value: "3"}, {Key: "m", Value: "4"}}}
	p := table091(EncodeAMQP(&m, Meta{}, now))
	var hs []stagebus.Header
	for _, h := range p.Headers {
		if h.Key != "z" { // a relay dropped it
			hs = append(hs, h)
		}
	}
	p.Headers = append(hs, stagebus.Header{Key: "x-death", Value: "d"}, stagebus.Header{Key: "b", Value: "5"})
	var got stagebus.Message
	if _, err := DecodeAMQP(&got, p); err != nil {
		t.Fatal(err)
	}
	want := stagebus.Message{Headers: stagebus.Headers{{Key: "m", Value: "2"}, {Key: "a", Value: "3"}, {Key: "m", Value: "4"}, {Key: "b", Value: "5"}, {Key: "x-death", Value: "d"}}}
	if diff := same(got, want); diff != "" {
		t.Error(diff)
	}
}

func TestOrderListIsBounded(t *testing.T) {
	var m stagebus.Message
	for i := range 200 {
		m.Headers = append(m.Headers, stagebus.Header{Key: strings.Repeat(string(rune('z'-i%26)), 255), Value: "v"})
	}
	for _, h := range EncodeAMQP(&m, Meta{}, now).Headers {
		if h.Key == "stagebus-order" {
			t.Fatalf("%d bytes of names: the frame would not hold", len(h.Value))
		}
	}
	got, _, err := viaAMQP(m, Meta{}, now)
	if err != nil || len(got.Headers) != len(m.Headers) {
		t.Fatal(len(got.Headers), err)
	}
}

func TestEncodingChangesNothing(t *testing.T) {
	m, before := full(), full()
	kafkaHeaders(&m, Meta{})
	EncodeAMQP(&m, Meta{}, now)
	if diff := same(m, before); diff != "" {
		t.Error(diff)
	}
}
