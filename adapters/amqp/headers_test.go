package amqp

import (
	"math"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// Every type that the client library reads comes back as it was, through strings.
func TestHeadersRoundTrip(t *testing.T) {
	deep := any("bottom")
	for range maxDepth - 1 {
		deep = []any{deep}
	}
	table := amqp091.Table{
		"void": nil, "true": true, "false": false,
		"int8": int8(math.MinInt8), "uint8": uint8(math.MaxUint8), "int16": int16(math.MinInt16), "uint16": uint16(math.MaxUint16),
		"int32": int32(math.MinInt32), "uint32": uint32(math.MaxUint32), "int64": int64(math.MinInt64), "beyond int32": int64(1) << 40,
		"float32": float32(0.1), "float64": 0.1, "inf": math.Inf(-1), "huge": math.MaxFloat64, "minus zero": math.Copysign(0, -1),
		"decimal": amqp091.Decimal{Scale: 2, Value: -12345}, "deep decimal": amqp091.Decimal{Scale: 255, Value: math.MaxInt32},
		"text": "text, ünïcode", "empty": "", "no text": "\xff\xfe",
		"bytes": []byte("text after all"), "no text bytes": []byte{0xff, 0}, "empty bytes": []byte{},
		"time": time.Unix(1625512731, 0), "before": time.Unix(-1, 0), "far": time.Unix(1<<40, 0), "early": time.Unix(math.MinInt32*1000, 0),
		"array": []any{int32(1), "two", []byte{3}, nil}, "empty array": []any{}, "one": []any{"single"}, "strings": []any{"a", "b"},
		"bytes and strings": []any{"a", []byte{0xff}}, "text as bytes": []any{"a", []byte("b")},
		"table": amqp091.Table{"a": int64(1), "b": amqp091.Table{"\xff": "\xff", "c": []any{time.Unix(7, 0), []byte("x")}}}, "empty table": amqp091.Table{},
		"a&b=c;": int32(5), "deep": deep,
	}
	hs := headersFrom(table)
	if got := tableFrom(hs); !reflect.DeepEqual(got, table) {
		for name := range table {
			if !reflect.DeepEqual(got[name], table[name]) {
				t.Errorf("%s: %#v is now %#v", name, table[name], got[name])
			}
		}
		t.Errorf("from %q", hs)
	}
}

func TestHeadersNaN(t *testing.T) {
	bits := uint64(0x7ff8_0000_dead_beef)
	got := tableFrom(headersFrom(amqp091.Table{"d": math.Float64frombits(bits), "f": math.Float32frombits(0x7fc0_1234)}))
	if math.Float64bits(got["d"].(float64)) != bits || math.Float32bits(got["f"].(float32)) != 0x7fc0_1234 {
		t.Errorf("%x", got)
	}
}

// What others read is text where it is text, and nothing is added for it.
func TestHeadersPlain(t *testing.T) {
	hs := []stagebus.Header{{Key: "a", Value: "1"}, {Key: "a", Value: "\xff"}, {Key: "b", Value: ""}, {Key: "c", Value: "\x80"}}
	table := tableFrom(hs)
	want := amqp091.Table{"a": []any{"1", []byte{0xff}}, "b": "", "c": []byte{0x80}}
	if !reflect.DeepEqual(table, want) {
		t.Errorf("%#v", table)
	}
	if back := headersFrom(table); !reflect.DeepEqual(back, hs) {
		t.Errorf("%q", back)
	}
	if headersFrom(nil) != nil || tableFrom(nil) != nil {
		t.Error("no headers have become some")
	}
}

func TestHeadersCanonical(t *testing.T) {
	hs := headersFrom(amqp091.Table{"n": int64(-5), "t": time.Unix(1625512731, 0), "ok": true, "d": amqp091.Decimal{Scale: 2, Value: 314}})
	want := []stagebus.Header{
		{Key: "d", Value: "314e-2"}, {Key: "n", Value: "-5"}, {Key: "ok", Value: "true"}, {Key: "t", Value: "2021-07-05T19:18:51Z"},
		{Key: headerTypes, Value: "d=D&n=l&ok=t&t=T"},
	}
	if !reflect.DeepEqual(hs, want) {
		t.Errorf("%q", hs)
	}
}

// A mark that doesn't fit its value any more, or was never one of ours, costs nothing but the type.
func TestHeadersStaleMark(t *testing.T) {
	for _, c := range []struct{ value, types string }{
		{"abc", "h=l"}, {"300", "h=B"}, {"70000", "h=s"}, {"4294967296", "h=I"}, {"yes", "h=t"}, {"x", "h=V"}, {"{", "h=F"}, {"[[1]]", "h=A"},
		{`[["A",[["A",5]]]]`, "h=A"}, {strings.Repeat(`[["A",`, 40) + "[]" + strings.Repeat("]]", 40), "h=A"}, {`[["S","k","l","x"]]`, "h=F"},
		{`[["S*","%","l","1"]]`, "h=F"}, {"1e-300", "h=D"}, {"yesterday", "h=T"}, {"1.5.2", "h=d"}, {"x", "h=?"},
	} {
		got := tableFrom([]stagebus.Header{{Key: "h", Value: c.value}, {Key: headerTypes, Value: c.types}})
		if !reflect.DeepEqual(got, amqp091.Table{"h": c.value}) {
			t.Errorf("%s %s: %#v", c.value, c.types, got)
		}
	}
	odd := []stagebus.Header{{Key: "h", Value: "5"}, {Key: headerTypes, Value: "h=%zz"}}
	if got := tableFrom(odd); !reflect.DeepEqual(got, amqp091.Table{"h": "5", headerTypes: "h=%zz"}) {
		t.Errorf("%#v", got)
	}
}

// No input makes a table that the client library refuses or cuts, and what was written reads back as the same strings.
func FuzzHeaders(f *testing.F) {
	f.Add("name", "5", "l")
	f.Add("name", `[["F",[["S","k","l","1"]]]]`, "A")
	f.Add("name", `[["S*","/w==","x*","/w=="]]`, "F")
	f.Add("n=&", "\xff", "S")
	f.Add("n", "2021-07-05T19:18:51+02:00", "T")
	f.Fuzz(func(t *testing.T, name, value, letter string) {
		if name == headerTypes {
			t.Skip()
		}
		hs := []stagebus.Header{{Key: name, Value: value}, {Key: headerTypes, Value: url.Values{name: {letter}}.Encode()}}
		table := tableFrom(hs)
		if err := table.Validate(); err != nil {
			t.Fatal(err)
		}
		if _, ok := table[name].(int); ok {
			t.Fatal("int would be cut")
		}
		once := headersFrom(table)
		twice := headersFrom(tableFrom(once))
		if !reflect.DeepEqual(once, twice) {
			t.Fatalf("%q has become %q", once, twice)
		}
	})
}
