// Package json is the codec of application/json: encoding/json, without what it lets pass silently.
//
// Decoding refuses, with the offset: a name that an object has twice, text that isn't UTF-8, halves of surrogate pairs, nesting deeper than 1,000
// levels, anything after the value, an empty body. Encoding refuses strings that aren't UTF-8, such as a token cut in the middle of a
// character, where encoding/json would put U+FFFD. HTML is not escaped.
//
// Everything else is as in encoding/json. In particular names match the fields of a struct without regard to case, so that {"id": 1, "ID": 2}
// sets one field twice; and null leaves the zero value.
package json

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/stagebus/stagebus/codec"
)

// Codec is the codec of T. The zero value is ready for use.
//
// Numbers are exact where T has a place for them: an integer that doesn't fit its field is an error, and a number in an any is a Number of
// encoding/json, which keeps every digit, not a float64.
type Codec[T any] struct {
	// RefuseUnknown makes a name that T has no field for an error. By default it is skipped, so that senders may grow.
	RefuseUnknown bool
}

const contentType = "application/json"

// ContentType implements [codec.Codec].
func (Codec[T]) ContentType() string { return contentType }

// Append implements [codec.Codec]. There is no line feed at the end.
func (Codec[T]) Append(dst []byte, v T) ([]byte, error) {
	out := appender{dst}
	enc := stdjson.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // nothing was written: Encode writes once
		return dst, &codec.Error{Op: "encode", ContentType: contentType, Offset: -1, Err: shorten(err)}
	}
	out.b = out.b[:len(out.b)-1]
	if bytes.Contains(out.b[len(dst):], []byte(`\ufffd`)) && hasInvalidUTF8(v) {
		return dst, &codec.Error{Op: "encode", ContentType: contentType, Offset: -1, Err: errUTF8}
	}
	return out.b, nil
}

type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// Decode implements [codec.Codec].
func (c Codec[T]) Decode(src []byte, v *T) error {
	if at, err := check(src); err != nil {
		return fault(at, err)
	}
	r := bytes.NewReader(src)
	dec := stdjson.NewDecoder(r)
	dec.UseNumber()
	if c.RefuseUnknown {
		dec.DisallowUnknownFields()
	}
	var fresh T
	if err := dec.Decode(&fresh); err != nil {
		return explain(err, src, dec.InputOffset())
	}
	end := int(dec.InputOffset())
	if rest := bytes.TrimLeft(src[end:], " \t\r\n"); len(rest) > 0 {
		return fault(len(src)-len(rest), errors.New("something follows the value"))
	}
	*v = fresh
	return nil
}

func fault(at int, err error) error {
	return &codec.Error{Op: "decode", ContentType: contentType, Offset: int64(at), Err: err}
}

// explain finds the offset in an error of encoding/json. read is how far the decoder came, when the error doesn't say.
func explain(err error, src []byte, read int64) error {
	var syntax *stdjson.SyntaxError
	var wrong *stdjson.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return fault(len(src), errors.New("no value"))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault(len(src), errors.New("the value ends too early"))
	case errors.As(err, &syntax):
		return fault(max(int(syntax.Offset)-1, 0), shorten(err)) // encoding/json counts the bad byte
	case errors.As(err, &wrong):
		return fault(int(wrong.Offset), shorten(err))
	}
	return fault(int(read), shorten(err))
}

// maxText bounds the text of an error: encoding/json, and methods of T, put names and literals of any length into theirs.
const maxText = 200

func shorten(err error) error {
	text := err.Error()
	if len(text) <= maxText {
		return err
	}
	return &shortened{strings.ToValidUTF8(text[:maxText-3], "") + "...", err}
}

type shortened struct {
	text string
	err  error
}

func (s *shortened) Error() string { return s.text }
func (s *shortened) Unwrap() error { return s.err }
