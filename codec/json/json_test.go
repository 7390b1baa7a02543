package json_test

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/codectest"
	"github.com/stagebus/stagebus/codec/json"
)

type record struct {
	ID    int64              `json:"id"`
	Text  string             `json:"text"`
	Small int8               `json:"small,omitempty"`
	Any   any                `json:"any,omitempty"`
	Tags  []string           `json:"tags,omitempty"`
	Raw   stdjson.RawMessage `json:"raw,omitempty"`
	At    *time.Time         `json:"at,omitempty"`
	Sub   *record            `json:"sub,omitempty"`
}

func same[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

func TestLaw(t *testing.T) {
	at := time.Date(2026, 11, 5, 12, 0, 0, 1, time.UTC)
	many := record{Text: strings.Repeat("Ü<&>\u2028\U0001f600", 1000)}
	if err := codectest.Check(json.Codec[record]{}, same[record], record{}, many, record{
		ID: math.MaxInt64, Text: "\x00\"\\\ufffd", Any: stdjson.Number("18446744073709551616.000000000000000001"),
		Tags: []string{"", "a"}, Raw: stdjson.RawMessage(`{"a":"\ufffd"}`), At: &at, Sub: &record{ID: -1},
	}); err != nil {
		t.Error(err)
	}
	if err := codectest.Check(json.Codec[string]{}, same[string], "", "x"); err != nil {
		t.Error(err)
	}
	large := map[string]any{}
	for i := range 100 {
		large[strings.Repeat("k", i)] = stdjson.Number("1")
	}
	if err := codectest.Check(json.Codec[map[string]any]{}, same[map[string]any], nil, map[string]any{}, large); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	deep := func(open, in, shut string, n int) string {
		return strings.Repeat(open, n) + in + strings.Repeat(shut, n)
	}
	names := `"n0":0`
	for i := range 40 {
		names += `,"n` + strings.Repeat("x", i) + `":1`
	}
	for _, c := range []struct {
		body string
		at   int64
	}{
		{``, 0},
		{`  `, 2},
		{`{"id": 1} {"id": 2}`, 10},
		{`{"id": 1}` + "\n" + `x`, 10},
		{`1` + "\x00", 1},
		{`{"id": 1, "id": 2}`, 10},
		{`{"id": 1, "\u0069d": 2}`, 10},
		{`{"any": {"a": 1, "b": [{"a": 1}], "a": 2}}`, 34},
		{`{"any": {` + names + `,"n": 2}}`, int64(len(`{"any": {` + names + `,`))},
		{"{\"text\": \"a\xffb\"}", 11},
		{"{\"text\xff\": 1}", 6},
		{"\xff", 0},
		{"\ufeff1", 0},
		{`{"text": "\ud800"}`, 10},
		{`{"text": "\udc00\ud800"}`, 10},
		{`{"text": "\ud800\u0041"}`, 10},
		{`{"text": "x`, 11},
		{`{"id": 1`, 8},
		{`{"id": x}`, 7},
		{`{"text": "\x"}`, 11},
		{`{"id": 9223372036854775808}`, 26},
		{`{"small": 300}`, 13},
		{`{"text": 1}`, 10},
		{deep("[", "", "]", 1001), 1000},
		{deep(`{"a":`, "1", "}", 100000), 5000},
		{`{"at": "` + strings.Repeat("9", 1<<16) + `"}`, 1<<16 + 10},
		{`{"small": ` + strings.Repeat("9", 1<<16) + `}`, 1<<16 + 10},
		{`]`, 0},
		{`{]`, 1},
	} {
		got := record{Text: "before"}
		err := json.Codec[record]{}.Decode([]byte(c.body), &got)
		var e *codec.Error
		if !errors.As(err, &e) || e.Offset != c.at || len(err.Error()) > 300 {
			t.Errorf("%.60q: want offset %d: %.300v", c.body, c.at, err)
		}
		if !same(got, record{Text: "before"}) {
			t.Errorf("%.60q: the value changed", c.body)
		}
	}
}

func TestTaken(t *testing.T) {
	for body, want := range map[string]any{
		" \r\n\t1 \n":      stdjson.Number("1"),
		`9007199254740993`: stdjson.Number("9007199254740993"),
		`"\ud83d\ude00\ufffd\uD7FF\ue000\\ud800"`:  "\U0001f600\ufffd\ud7ff\ue000\\ud800",
		`{"a": {"a": 1}, "b": {"a": 2}, "A": "a"}`: map[string]any{"a": map[string]any{"a": stdjson.Number("1")}, "b": map[string]any{"a": stdjson.Number("2")}, "A": "a"},
		`["a", "a", {"x": "x", "y": "x"}]`:         []any{"a", "a", map[string]any{"x": "x", "y": "x"}},
		`null`:                                     nil,
	} {
		var got any = "before"
		if err := (json.Codec[any]{}).Decode([]byte(body), &got); err != nil || !same(got, want) {
			t.Errorf("%s: %#v %v", body, got, err)
		}
	}
	var v any
	if err := (json.Codec[any]{}).Decode([]byte(strings.Repeat("[", 1000)+strings.Repeat("]", 1000)), &v); err != nil {
		t.Errorf("1,000 levels: %v", err)
	}
}

func TestRefuseUnknown(t *testing.T) {
	body := []byte(`{"id": 1, "` + strings.Repeat("new", 1000) + `": 2}`)
	var r record
	if err := (json.Codec[record]{}).Decode(body, &r); err != nil || r.ID != 1 {
		t.Error(r, err)
	}
	var e *codec.Error
	if err := (json.Codec[record]{RefuseUnknown: true}).Decode(body, &r); !errors.As(err, &e) || len(err.Error()) > 300 {
		t.Error(err)
	}
}

type texts struct {
	Plain   string
	Named   *kindOfText
	In      []any
	Keys    map[string]int
	Hidden  string `json:"-"`
	Bytes   []byte
	Marshal stdjson.RawMessage
}
type kindOfText string

// A token cut in the middle of a character must not arrive as another text.
func TestAppendRefusesWhatIsNotUTF8(t *testing.T) {
	bad := kindOfText("\xe2\x82")
	for name, v := range map[string]texts{
		"string": {Plain: "a\xff"}, "pointer": {Named: &bad}, "interface": {In: []any{1, map[string]any{"x": "\xff"}}}, "name": {Keys: map[string]int{"\xff": 1}},
	} {
		out, err := json.Codec[texts]{}.Append([]byte("dst"), v)
		if err == nil || string(out) != "dst" {
			t.Errorf("%s: %q %v", name, out, err)
		}
	}
	fine := texts{Plain: `\ufffd` + "\ufffd", Hidden: "\xff", Bytes: []byte{0xff}, Marshal: stdjson.RawMessage(`"\ufffd"`)}
	if out, err := (json.Codec[texts]{}).Append(nil, fine); err != nil || !bytes.Contains(out, []byte(`"Marshal":"\ufffd"`)) {
		t.Errorf("a replacement character that was there before: %q %v", out, err)
	}
}

func TestAppend(t *testing.T) {
	out, err := json.Codec[record]{}.Append([]byte("x"), record{ID: 1, Text: "<a&b>"})
	if err != nil || string(out) != `x{"id":1,"text":"<a&b>"}` {
		t.Errorf("%s %v", out, err)
	}
	for _, v := range []any{math.NaN(), make(chan int), func() {}} {
		var e *codec.Error
		if out, err := (json.Codec[any]{}).Append([]byte("dst"), v); !errors.As(err, &e) || e.Op != "encode" || e.Offset != -1 || string(out) != "dst" {
			t.Errorf("%T: %q %v", v, out, err)
		}
	}
}
