package envelope

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stagebus/stagebus"
)

// cut makes headers of arbitrary bytes: names and values between line feeds.
func cut(data []byte) []stagebus.Header {
	parts := bytes.Split(data, []byte("\n"))
	var hs []stagebus.Header
	for i := 0; i+1 < len(parts); i += 2 {
		hs = append(hs, stagebus.Header{Key: string(parts[i]), Value: string(parts[i+1])})
	}
	return hs
}

// checkRead holds for whatever a stranger sent: nothing left in Headers is reserved, nothing is invented, and what was read without an error
// can be sent on and read again as the same.
func checkRead(t *testing.T, m stagebus.Message, err error, sent int) {
	t.Helper()
	if len(m.Headers) > sent {
		t.Fatalf("%d headers of %d", len(m.Headers), sent)
	}
	for _, h := range m.Headers {
		if stagebus.Reserved(h.Key) {
			t.Fatalf("%q was left in the headers and can't be sent on", h.Key)
		}
	}
	if err != nil || bare(&m) {
		return
	}
	if again, _, err := viaKafka(m, Meta{}); err != nil || same(again, m) != "" {
		t.Fatalf("Kafka: %s %v", same(again, m), err)
	}
	if again, _, err := viaAMQP(m, Meta{}, now); err != nil || same(again, m) != "" {
		t.Fatalf("AMQP: %s %v", same(again, m), err)
	}
}

func FuzzDecodeKafka(f *testing.F) {
	m := full()
	var wire []string
	for _, h := range kafkaHeaders(&m, Meta{Attempt: 2, Due: noon}) {
		wire = append(wire, h.Key, h.Value)
	}
	f.Add([]byte("key"), []byte(strings.Join(wire, "\n")))
	f.Add([]byte{}, []byte("ce_time\nnever\nce_id\n\nCE-ID\n2\nce_\n"))
	f.Fuzz(func(t *testing.T, body, data []byte) {
		hs := cut(data)
		got := stagebus.Message{Body: body}
		_, err := readKafka(&got, hs)
		checkRead(t, got, err, len(hs))
	})
}

func FuzzDecodeAMQP(f *testing.F) {
	m := full()
	p := EncodeAMQP(&m, Meta{Attempt: 2}, now)
	var wire []string
	for _, h := range p.Headers {
		wire = append(wire, h.Key, h.Value)
	}
	f.Add([]byte("b"), "id", "100", int64(1793880000), uint8(9), []byte(strings.Join(wire, "\n")))
	f.Add([]byte{}, "", "x", int64(0), uint8(0), []byte("specversion\n1.0\nid\n1\nstagebus-order\n,,%,b\nstagebus-nil\n\nb\n1"))
	f.Fuzz(func(t *testing.T, body []byte, native, expiration string, seconds int64, priority uint8, data []byte) {
		hs := cut(data)
		got := stagebus.Message{Body: body}
		p := Properties{MessageID: native, ReplyTo: native, Expiration: expiration, Priority: priority, Headers: hs}
		if seconds != 0 && seconds > -1<<35 && seconds < 1<<37 { // years with four digits
			p.Timestamp = time.Unix(seconds, 0)
		}
		_, err := DecodeAMQP(&got, table091(p))
		checkRead(t, got, err, len(hs))
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("k"), []byte("b"), "v", "utf-8, zstd", int64(1793880000), int64(5), uint8(3), 2, []byte("z\n1\na\n2\nz\n3\nce_x\n4"))
	f.Add([]byte(nil), []byte(nil), "", "", int64(0), int64(0), uint8(0), 0, []byte("b\n\na\n,"))
	f.Fuzz(func(t *testing.T, key, body []byte, v, w string, seconds, nanos int64, prio uint8, attempt int, data []byte) {
		m := stagebus.Message{Key: key, Body: body, ID: v, Source: w, Type: v, Subject: w, ContentType: v, ContentEncoding: w, CorrelationID: v,
			ReplyTo: w, Audience: v, Priority: prio}
		if seconds > 0 && seconds < 1<<37 {
			m.Time = time.Unix(seconds, nanos%1e9)
			m.Deadline = time.Unix(seconds, 0)
		}
		for _, h := range cut(data) { // as the Broker lets through
			if h.Key != "" && len(h.Key) <= 255 && utf8.ValidString(h.Key) && !stagebus.Reserved(h.Key) {
				m.Headers = append(m.Headers, h)
			}
		}
		if len(data) > 1<<10 || attempt == 1 || attempt < 0 || attempt > 1<<30 {
			return
		}
		checkBoth(t, "fuzzed", m, Meta{Attempt: attempt})
	})
}
