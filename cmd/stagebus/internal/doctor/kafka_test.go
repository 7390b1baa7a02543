package doctor

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kversion"
)

func TestKafkaVersion(t *testing.T) {
	for _, c := range []struct {
		of     *kversion.Versions
		want   string
		status Status
	}{
		{kversion.V2_4_0(), "Kafka 2.4", Warn},
		{kversion.V2_5_0(), "Kafka 2.5", OK},
		{kversion.V3_9_0(), "Kafka 3.9", OK},
		{kversion.V4_1_0(), "Kafka 4.1", OK},
	} {
		var ranges []versionRange
		c.of.EachMaxKeyVersion(func(k, v int16) { ranges = append(ranges, versionRange{key: k, max: v}) })
		if f := kafkaVersion(ranges); f.detail != c.want && f.detail != c.want+" or newer" || f.status != c.status {
			t.Errorf("got %s %q, want %s %q", f.status, f.detail, c.status, c.want)
		}
	}
	few := []versionRange{{int16(protocol.Produce), 0, 9}, {int16(protocol.Fetch), 0, 12}}
	if f := kafkaVersion(few); f.detail != "speaks Kafka's protocol: 2 kinds of requests, Fetch up to version 12" {
		t.Error(f.detail)
	}
	if f := kafkaVersion(nil); f.status != Warn {
		t.Error(f.status)
	}
}

// scripted is a connection that reads from what stands there.
type scripted struct {
	net.Conn
	r *bytes.Reader
}

func (s scripted) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s scripted) Write(b []byte) (int, error) { return len(b), nil }

// FuzzAPIVersions: what answers may be anything, and must not make us allocate what it says.
func FuzzAPIVersions(f *testing.F) {
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte("\x00\x00\x00\x10STGB\x00\x00\x00\x00\x00\x01\x00\x12\x00\x00\x00\x04"))
	f.Add([]byte("\x00\x00\x00\x0aSTGB\x00\x23\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\xff\xffSTGB\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ranges, err := apiVersions(scripted{r: bytes.NewReader(answer)}, "c")
		if err == nil && (len(answer) < 14+6*len(ranges)) {
			t.Errorf("%d ranges from %d bytes", len(ranges), len(answer))
		}
	})
}

func TestAPIVersions(t *testing.T) {
	for answer, want := range map[string]error{
		"HTTP/1.1 400 Bad Request\r\n\r\n":             errNotKafka,
		"\x00\x00\xff\xffSTGB\x00\x00\xff\xff\xff\xff": errNotKafka,
	} {
		if _, err := apiVersions(scripted{r: bytes.NewReader([]byte(answer))}, "c"); !errors.Is(err, want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
	got, err := apiVersions(scripted{r: bytes.NewReader([]byte("\x00\x00\x00\x10STGB\x00\x00\x00\x00\x00\x01\x00\x12\x00\x01\x00\x04"))}, "c")
	if err != nil || len(got) != 1 || got[0] != (versionRange{18, 1, 4}) {
		t.Errorf("%v, %v", got, err)
	}
}
