package raw_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/codectest"
	"github.com/stagebus/stagebus/codec/raw"
)

func TestLaw(t *testing.T) {
	sameBytes := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	if err := codectest.Check[[]byte](raw.Bytes{}, sameBytes, nil, []byte{}, []byte("\x00\xff"), bytes.Repeat([]byte("x"), 1<<16)); err != nil {
		t.Error("Bytes:", err)
	}
	sameText := func(a, b string) bool { return a == b }
	if err := codectest.Check[string](raw.Text{}, sameText, "", "x", "\ufeffÜ\r\n\x00\ufffd", strings.Repeat("ä", 1<<16)); err != nil {
		t.Error("Text:", err)
	}
}

func TestNilAndEmptyBodies(t *testing.T) {
	for _, c := range []struct {
		encode func(*stagebus.Message) error
		isNil  bool
	}{
		{func(m *stagebus.Message) error { return codec.Encode(raw.Bytes{}, nil, m) }, true},
		{func(m *stagebus.Message) error { return codec.Encode(raw.Bytes{}, []byte{}, m) }, false},
		{func(m *stagebus.Message) error { return codec.Encode(raw.Text{}, "", m) }, false},
	} {
		var m stagebus.Message
		if err := c.encode(&m); err != nil || (m.Body == nil) != c.isNil || len(m.Body) > 0 {
			t.Errorf("%#v %v", m.Body, err)
		}
	}
	if s, err := codec.Decode(raw.Text{}, &stagebus.Message{}); s != "" || err != nil {
		t.Errorf("a nil body as text: %q %v", s, err)
	}
}

// What is encoded is a copy: the caller may go on with its buffer.
func TestBytesAreCopied(t *testing.T) {
	buf := []byte("first")
	var m stagebus.Message
	if err := codec.Encode(raw.Bytes{}, buf, &m); err != nil {
		t.Fatal(err)
	}
	copy(buf, "other")
	if string(m.Body) != "first" {
		t.Errorf("%q", m.Body)
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	for body, at := range map[string]int64{"\xff": 0, "ok\ufffd\xc3": 5, "ab\xed\xa0\x80": 2, "\xf0\x9f\x98": 0} {
		var e *codec.Error
		var s string
		if err := (raw.Text{}).Decode([]byte(body), &s); !errors.As(err, &e) || e.Offset != at || e.Op != "decode" {
			t.Errorf("Decode %q: %v", body, err)
		}
		if out, err := (raw.Text{}).Append([]byte("dst"), body); !errors.As(err, &e) || e.Offset != at || e.Op != "encode" || string(out) != "dst" {
			t.Errorf("Append %q: %q %v", body, out, err)
		}
	}
}
