package json_test

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/json"
)

// What we take, encoding/json takes and reads the same; what encoding/json refuses, we refuse; and what we took survives our own encoding.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"id": 1, "text": "Hello World", "timestamp": 1625512731}`, `[{"a":"\ud83d\ude00"},null,-1.5e300]`, `{"a":1,"\u0061":2}`, "\"\xff\"", `{"":{"":""}}`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		src := bytes.Clone(body)
		var got any
		err := json.Codec[any]{}.Decode(src, &got)
		if !bytes.Equal(src, body) {
			t.Fatal("src was changed")
		}
		if err != nil {
			var e *codec.Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(body)) {
				t.Fatalf("%v", err)
			}
			return
		}
		if !stdjson.Valid(body) || !utf8.Valid(body) {
			t.Fatalf("%q was taken", body)
		}
		out, err := json.Codec[any]{}.Append(nil, got)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		if err := (json.Codec[any]{}).Decode(out, &again); err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
	})
}

func benchBody() (record, []byte) {
	v := record{ID: 1625512731, Text: string(bytes.Repeat([]byte("The quick brown fox. "), 40)), Tags: []string{"train", "shard-7"}, Sub: &record{ID: 2}}
	b, err := json.Codec[record]{}.Append(nil, v)
	if err != nil {
		panic(err)
	}
	return v, b
}

func BenchmarkDecode(b *testing.B) {
	_, body := benchBody()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var v record
	for b.Loop() {
		if err := (json.Codec[record]{}).Decode(body, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStandard(b *testing.B) {
	_, body := benchBody()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var v record
		if err := stdjson.Unmarshal(body, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	v, body := benchBody()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	dst := make([]byte, 0, 2*len(body))
	for b.Loop() {
		if _, err := (json.Codec[record]{}).Append(dst, v); err != nil {
			b.Fatal(err)
		}
	}
}
