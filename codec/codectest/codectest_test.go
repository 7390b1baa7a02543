package codectest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/codectest"
	"github.com/stagebus/stagebus/codec/raw"
)

// faulty is raw.Bytes with one fault.
type faulty struct {
	raw.Bytes
	contentType string
	appendTo    func(dst, v []byte) ([]byte, error)
	decode      func(src []byte, v *[]byte) error
}

func (f faulty) ContentType() string {
	if f.contentType != "" {
		return f.contentType
	}
	return f.Bytes.ContentType()
}

func (f faulty) Append(dst, v []byte) ([]byte, error) {
	if f.appendTo != nil {
		return f.appendTo(dst, v)
	}
	return f.Bytes.Append(dst, v)
}

func (f faulty) Decode(src []byte, v *[]byte) error {
	if f.decode != nil {
		return f.decode(src, v)
	}
	return f.Bytes.Decode(src, v)
}

func TestTheLawCatches(t *testing.T) {
	fault := func(offset int64, text string) error {
		return &codec.Error{Op: "decode", ContentType: "application/octet-stream", Offset: offset, Err: errors.New(text)}
	}
	short := func(change func(src []byte, v *[]byte) error) faulty {
		return faulty{decode: func(src []byte, v *[]byte) error {
			if len(src) == 5 {
				*v = slices.Clone(src)
				return nil
			}
			return change(src, v)
		}}
	}
	for name, c := range map[string]struct {
		codec faulty
		want  string
	}{
		"a bad content type":       {faulty{contentType: "a b"}, "ContentType"},
		"an error":                 {faulty{appendTo: func(d, _ []byte) ([]byte, error) { return d, errors.New("no") }}, "Append: no"},
		"a prefix that is lost":    {faulty{appendTo: func(_, v []byte) ([]byte, error) { return slices.Clone(v), nil }}, "prefix"},
		"a prefix that is changed": {faulty{appendTo: func(d, v []byte) ([]byte, error) { clear(d); return append(d, v...), nil }}, "prefix"},
		"another value":            {faulty{decode: func(_ []byte, v *[]byte) error { *v = []byte("x"); return nil }}, "another value"},
		"a merge":                  {faulty{decode: func(s []byte, v *[]byte) error { *v = append(slices.Clone(*v), s...); return nil }}, "another value"},
		"an alias":                 {faulty{decode: func(s []byte, v *[]byte) error { *v = s; return nil }}, "shares bytes"},
		"a change of src":          {faulty{decode: func(s []byte, v *[]byte) error { *v = slices.Clone(s); clear(s); return nil }}, "changes src"},
		"a panic":                  {short(func(s []byte, _ *[]byte) error { return fault(int64(s[:0:0][0]), "") }), "panic"},
		"an untyped error":         {short(func([]byte, *[]byte) error { return errors.New("x") }), "not a *codec.Error"},
		"an offset outside":        {short(func([]byte, *[]byte) error { return fault(99, "x") }), "not a *codec.Error"},
		"a long text":              {short(func([]byte, *[]byte) error { return fault(0, strings.Repeat("x", 2000)) }), "not a *codec.Error"},
		"a value with an error":    {short(func(_ []byte, v *[]byte) error { *v = nil; return fault(0, "x") }), "in spite of"},
	} {
		err := codectest.Check[[]byte](c.codec, slices.Equal[[]byte], []byte("hello"), []byte("other"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
	if err := codectest.Check[[]byte](faulty{}, slices.Equal[[]byte], []byte("hello")); err != nil {
		t.Errorf("without a fault: %v", err)
	}
	if err := codectest.Check[[]byte](faulty{}, slices.Equal[[]byte]); err == nil {
		t.Error("no values are no proof")
	}
}
