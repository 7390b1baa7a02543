package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func encoded(t testing.TB, m *stagebus.Message) string {
	t.Helper()
	r := newRecord(m)
	var b bytes.Buffer
	if err := encodeRecord(&b, &r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRecordForm(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	for _, c := range []struct {
		name string
		m    stagebus.Message
		want string
	}{
		{"bare", stagebus.Message{Topic: "t", Body: []byte(`{"id": 1, "a": "<&>"}`)}, `{"topic":"t","body":"{\"id\": 1, \"a\": \"<&>\"}"}`},
		{"tombstone", stagebus.Message{Topic: "t", Key: []byte("k")}, `{"topic":"t","key":"k","body":null}`},
		{"empty", stagebus.Message{Topic: "t", Key: []byte{}, Body: []byte{}}, `{"topic":"t","key":"","body":""}`},
		{"binary", stagebus.Message{Topic: "t", Key: []byte{0xff}, Body: []byte{0, 0xfe}}, `{"topic":"t","key_base64":"/w==","body_base64":"AP4="}`},
		{
			"headers", stagebus.Message{Topic: "t", Body: []byte("x"), Headers: stagebus.Headers{{Key: "b", Value: "2"}, {Key: "a", Value: "\xff"}, {Key: "b", Value: ""}}},
			`{"topic":"t","body":"x","headers":[["b","2"],["a",{"base64":"/w=="}],["b",""]]}`,
		},
		{
			"attributes", stagebus.Message{
				Topic: "t", Partition: stagebus.At(3), Body: []byte("x"), Time: at, ID: "1", Source: "s", Type: "y", Subject: "j",
				ContentType: "c", ContentEncoding: "e", CorrelationID: "r", ReplyTo: "p", Audience: "a", Deadline: at, Priority: 9,
			},
			`{"topic":"t","partition":3,"body":"x","time":"2026-01-02T03:04:05.678Z","id":"1","source":"s","type":"y","subject":"j",` +
				`"content_type":"c","content_encoding":"e","correlation_id":"r","reply_to":"p","audience":"a","deadline":"2026-01-02T03:04:05.678Z","priority":9}`,
		},
		{"time beyond RFC 3339", stagebus.Message{Topic: "t", Body: []byte("x"), Time: time.UnixMilli(1 << 60)}, `{"topic":"t","body":"x","time":1152921504606846976}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := encoded(t, &c.m)
			if got != c.want+"\n" {
				t.Errorf("got  %swant %s", got, c.want)
			}
			back, err := decodeRecord([]byte(got))
			if err != nil {
				t.Fatal(err)
			}
			same(t, &c.m, &back)
		})
	}
}

func TestDeliveryRecordIsARecord(t *testing.T) {
	d := stagebus.Delivery{
		Message:  stagebus.Message{Topic: "t", Partition: stagebus.At(1), Body: []byte("x")},
		Position: stagebus.Position{Topic: "t", Partition: 1, Offset: 7}, Attempt: 2, Redelivered: true,
		Peer: &stagebus.Peer{User: "u"}, Err: stagebus.ErrInvalid,
	}
	r := deliveryRecord(&d)
	var b bytes.Buffer
	if err := encodeRecord(&b, &r); err != nil {
		t.Fatal(err)
	}
	want := `{"topic":"t","body":"x","position":{"topic":"t","partition":1,"offset":7},"attempt":2,"redelivered":true,"peer":{"user":"u"},"error":"invalid"}` + "\n"
	if b.String() != want {
		t.Errorf("got  %swant %s", b.String(), want)
	}
	m, err := decodeRecord(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	same(t, &stagebus.Message{Topic: "t", Body: []byte("x")}, &m)
}

func TestDecodeRecordRefuses(t *testing.T) {
	for line, want := range map[string]string{
		`{"body":"x"`:                            "does not end",
		`{"body":"x"}}`:                          "more than one",
		`{"body":"x"} {"body":"y"}`:              "more than one",
		`[1]`:                                    "where an object is expected",
		`hello`:                                  "not a record in JSON",
		`{"topic":"t"}`:                          `no "body"`,
		`{"body":"x","value":1}`:                 `unknown field "value"`,
		`{"body":{"id":1}}`:                      "are strings",
		`{"body":"x","body_base64":"AA=="}`:      `both "body"`,
		`{"body_base64":"?"}`:                    "base64",
		`{"body":"x","key":"a","key_base64":""}`: `both "key"`,
		`{"body":"x","headers":{"a":"b"}}`:       "headers",
		`{"body":"x","headers":[{"a":"b"}]}`:     `[["name", "value"]]`,
		`{"body":"x","headers":[["a"]]}`:         "of 1 elements",
		`{"body":"x","headers":[["a","b","c"]]}`: "of 3 elements",
		`{"body":"x","headers":[["a",1]]}`:       "where a string",
		`{"body":"x","headers":[["a",null]]}`:    "where a string",
		`{"body":"x","id":{"base":"AA=="}}`:      "base64",
		`{"body":"x","time":"yesterday"}`:        "where a time",
		`{"body":"x","time":null}`:               "where a time",
		`{"body":"x","partition":-1}`:            "count from 0",
		`{"body":"x","partition":2147483647}`:    "count from 0",
		`{"body":"x","priority":256}`:            "priority",
		"{\"body\":\"\xff\"}":                    "not UTF-8",
		`{"body":"\udcff"}`:                      `\udcff is half`,
		`{"body":"\ud83d"}`:                      `\ud83d is half`,
		`{"body":"\ud83dx\ude00"}`:               `\ud83d is half`,
		`{"body":"\ud83d\u0041"}`:                `\ud83d is half`,
		`{"body":"\\\ud800"}`:                    `\ud800 is half`,
	} {
		_, err := decodeRecord([]byte(line))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", line, err, want)
		}
	}
}

func TestDecodeRecordEscapes(t *testing.T) {
	m, err := decodeRecord([]byte(`{"body":"\u00e9\ud83d\ude00\\ud800\n"}`))
	if err != nil || string(m.Body) != "é😀\\ud800\n" {
		t.Errorf("%q, %v", m.Body, err)
	}
}

func FuzzRecordRoundTrip(f *testing.F) {
	f.Add("t", []byte("k"), false, []byte("body"), false, "h", "v", "id", int64(1), int32(0), uint8(0))
	f.Add("", []byte{0xff}, false, []byte{0xfe, 0}, false, "\xff", "\x00\xc0", "\xed\xa0\x80", int64(-1<<62), int32(5), uint8(9))
	f.Add("t", []byte(nil), true, []byte(nil), true, "", "\u2028", "<&>\ufffd", int64(1<<62), int32(-1), uint8(255))
	f.Fuzz(func(t *testing.T, topic string, key []byte, noKey bool, body []byte, noBody bool, name, value, attr string, ms int64, part int32, prio uint8) {
		m := stagebus.Message{
			Topic: strings.ToValidUTF8(topic, ""), // CheckTopic refuses others
			Key:   append([]byte{}, key...), Body: append([]byte{}, body...), Priority: prio, Time: time.UnixMilli(ms), Deadline: time.Unix(ms%1e10, ms%1e9),
			ID: attr, Source: value, Type: name, Subject: attr, ContentType: value, ContentEncoding: name, CorrelationID: attr, ReplyTo: value, Audience: name,
			Headers: stagebus.Headers{{Key: name, Value: value}, {Key: value, Value: name}, {Key: name, Value: attr}},
		}
		if noKey {
			m.Key = nil
		}
		if noBody {
			m.Body = nil
		}
		if part >= 0 && part < 1<<31-1 {
			m.Partition = stagebus.At(part)
		}
		line := encoded(t, &m)
		if strings.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line: %q", line)
		}
		back, err := decodeRecord([]byte(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		same(t, &m, &back)
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"topic":"t","key":null,"body":"x","headers":[["a",{"base64":"/w=="}]],"time":12,"position":null}`))
	f.Add([]byte(`{"body":null,"deadline":"2026-01-02T03:04:05+01:00","partition":0}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeRecord(line)
		if err != nil {
			return
		}
		back, err := decodeRecord([]byte(encoded(t, &m)))
		if err != nil {
			t.Fatalf("%q was read, but not what was written of it: %v", line, err)
		}
		same(t, &m, &back)
	})
}

// same compares times as instants: the zone is not kept.
func same(t testing.TB, want, got *stagebus.Message) {
	t.Helper()
	w, g := *want, *got
	if !w.Time.Equal(g.Time) || !w.Deadline.Equal(g.Deadline) {
		t.Errorf("times: got %v, %v, want %v, %v", g.Time, g.Deadline, w.Time, w.Deadline)
	}
	w.Time, g.Time, w.Deadline, g.Deadline = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !reflect.DeepEqual(w, g) {
		t.Errorf("got  %+v\nwant %+v", g, w)
	}
}
