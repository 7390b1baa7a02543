package envelope

import (
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// Ten attributes, a time among them, and two headers of the application's own.
func typical() stagebus.Message {
	m := full()
	m.Priority, m.Deadline = 0, time.Time{}
	m.Headers = stagebus.Headers{{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {Key: "zone", Value: "eu"}}
	return m
}

func TestAllocations(t *testing.T) {
	m := typical()
	var kafka []stagebus.Header
	EncodeKafka(&m, Meta{}, func(k, v string) { kafka = append(kafka, stagebus.Header{Key: k, Value: v}) })
	values := make([][]byte, len(kafka))
	for i := range kafka {
		values[i] = []byte(kafka[i].Value)
	}
	p := table091(EncodeAMQP(&m, Meta{}, now))
	var out stagebus.Message // on the heap, as in an adapter's slice
	n := 0
	for _, c := range []struct {
		what string
		max  float64
		f    func()
	}{
		{"EncodeKafka: the time", 1, func() { EncodeKafka(&m, Meta{}, func(k, v string) { n += len(k) + len(v) }) }},
		{"DecodeKafka: the values, the headers", 2, func() {
			out = stagebus.Message{}
			_, err := DecodeKafka(&out, len(kafka), func(i int) (string, []byte) { return kafka[i].Key, values[i] })
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"EncodeAMQP: the properties, the headers, the time, the key", 4, func() { p2 := EncodeAMQP(&m, Meta{}, now); n += len(p2.Headers) }},
		{"DecodeAMQP: the properties, the headers, the key", 3, func() {
			out = stagebus.Message{Body: m.Body}
			if _, err := DecodeAMQP(&out, p); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		if got := testing.AllocsPerRun(100, c.f); got > c.max {
			t.Errorf("%s: %v allocations, want at most %v", c.what, got, c.max)
		}
	}
}

// A bare message with one header of its own: the least that a record with headers costs.
func BenchmarkBareKafka(b *testing.B) {
	m := stagebus.Message{Body: []byte("b"), Headers: stagebus.Headers{{Key: "zone", Value: "eu"}}}
	v := []byte("eu")
	b.ReportAllocs()
	n := 0
	var out stagebus.Message
	for b.Loop() {
		EncodeKafka(&m, Meta{}, func(k, v string) { n += len(k) + len(v) })
		out = stagebus.Message{}
		if _, err := DecodeKafka(&out, 1, func(int) (string, []byte) { return "zone", v }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeKafka(b *testing.B) {
	m := typical()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		EncodeKafka(&m, Meta{}, func(k, v string) { n += len(k) + len(v) })
	}
}

func BenchmarkDecodeKafka(b *testing.B) {
	m := typical()
	hs := kafkaHeaders(&m, Meta{})
	values := make([][]byte, len(hs))
	for i := range hs {
		values[i] = []byte(hs[i].Value)
	}
	b.ReportAllocs()
	var out stagebus.Message
	for b.Loop() {
		out = stagebus.Message{}
		if _, err := DecodeKafka(&out, len(hs), func(i int) (string, []byte) { return hs[i].Key, values[i] }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeAMQP(b *testing.B) {
	m := typical()
	b.ReportAllocs()
	for b.Loop() {
		EncodeAMQP(&m, Meta{}, now)
	}
}

func BenchmarkDecodeAMQP(b *testing.B) {
	m := typical()
	p := table091(EncodeAMQP(&m, Meta{}, now))
	b.ReportAllocs()
	var out stagebus.Message
	for b.Loop() {
		out = stagebus.Message{}
		if _, err := DecodeAMQP(&out, p); err != nil {
			b.Fatal(err)
		}
	}
}
