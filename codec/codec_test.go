package codec_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/json"
	"github.com/stagebus/stagebus/codec/raw"
)

func TestContentTypes(t *testing.T) {
	const (
		inJSON  = "json"
		inText  = "text"
		inBytes = "bytes"
	)
	for _, c := range []struct{ contentType, takes string }{
		{"", "json text bytes"},
		{"application/json", "json bytes"},
		{"Application/JSON ; charset=utf-8", "json bytes"},
		{"application/json; broken", "json bytes"},
		{"application/problem+json", "json bytes"},
		{"application/vnd.x+JSON;v=1", "json bytes"},
		{"text/plain", "text bytes"},
		{"text/plain; charset=us-ascii", "text bytes"},
		{"text/html", "bytes"},
		{"application/octet-stream", "bytes"},
		{"application/jsonl", "bytes"},
		{"application/json-seq", "bytes"},
		{"json", "bytes"},
		{"+json", "json bytes"},
		{"image/png", "bytes"},
	} {
		m := stagebus.Message{ContentType: c.contentType, Body: []byte(`"x"`)}
		errs := map[string]error{}
		_, errs[inJSON] = codec.Decode(json.Codec[string]{}, &m)
		_, errs[inText] = codec.Decode(raw.Text{}, &m)
		_, errs[inBytes] = codec.Decode(raw.Bytes{}, &m)
		for name, err := range errs {
			if want := strings.Contains(c.takes, name); want != (err == nil) || !want && !errors.Is(err, codec.ErrContentType) {
				t.Errorf("%q as %s: %v", c.contentType, name, err)
			}
		}
	}
}

func TestContentEncodings(t *testing.T) {
	for encoding, fine := range map[string]bool{
		"": true, "identity": true, "UTF-8": true, "binary": true, "identity, utf-8": true,
		"zstd": false, "zstd, aes256gcm": false, "utf-8, zstd": false, "unknown": false, strings.Repeat("x", 1<<20): false,
	} {
		m := stagebus.Message{ContentEncoding: encoding, Body: []byte("x")}
		_, err := codec.Decode(raw.Text{}, &m)
		if fine && err != nil || !fine && (!errors.Is(err, codec.ErrContentEncoding) || len(err.Error()) > 200) {
			t.Errorf("%.20q: %v", encoding, err)
		}
	}
}

func TestEncode(t *testing.T) {
	before := []byte("received")
	m := stagebus.Message{ID: "1", Body: before, ContentType: "image/png", ContentEncoding: "zstd"}
	if err := codec.Encode(raw.Text{}, "\xff", &m); !errors.Is(err, stagebus.ErrInvalid) || m.ContentType != "image/png" || string(m.Body) != "received" {
		t.Errorf("a failure must change nothing: %v %+v", err, m)
	}
	if err := codec.Encode(raw.Text{}, "sent", &m); err != nil {
		t.Fatal(err)
	}
	if string(m.Body) != "sent" || m.ContentType != "text/plain; charset=utf-8" || m.ContentEncoding != "" || m.ID != "1" || string(before) != "received" {
		t.Errorf("%+v, the received body %q", m, before)
	}
}

func TestErrorText(t *testing.T) {
	e := &codec.Error{Op: "decode", ContentType: "application/json", Offset: 7, Err: errors.New("why")}
	if got := e.Error(); got != "decode application/json: at byte 7: why" {
		t.Error(got)
	}
	e.Offset = -1
	if got := e.Error(); got != "decode application/json: why" {
		t.Error(got)
	}
}
