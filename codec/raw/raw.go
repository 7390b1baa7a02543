// Package raw has the codecs of bodies that are used as they are: [Bytes] and [Text].
//
// Both copy, in both directions. To look at a body without a copy there is Message.Body; it must not be written to.
package raw

import (
	"errors"
	"unicode/utf8"

	"github.com/stagebus/stagebus/codec"
)

// Bytes is the codec of application/octet-stream. It takes messages of any content type. A nil slice is a nil body, which on a compacted topic
// deletes the key; an empty slice is an empty one. The zero value is ready for use.
type Bytes struct{}

// Append implements [codec.Codec]. It never fails.
func (Bytes) Append(dst, v []byte) ([]byte, error) {
	if dst == nil && v != nil {
		dst = make([]byte, 0, len(v)) // empty is not nil
	}
	return append(dst, v...), nil
}

// Decode implements [codec.Codec]. It never fails.
func (Bytes) Decode(src []byte, v *[]byte) error {
	*v = nil
	if src != nil {
		*v = append(make([]byte, 0, len(src)), src...)
	}
	return nil
}

// ContentType implements [codec.Codec].
func (Bytes) ContentType() string { return "application/octet-stream" }

// Text is the codec of text/plain in UTF-8. What isn't UTF-8 is refused, both ways; anything else is kept as it is, with its line ends, a byte
// order mark and NUL. A nil body is the empty string. The zero value is ready for use.
type Text struct{}

// errUTF8 is the only way in which a text can be wrong.
var errUTF8 = errors.New("not UTF-8")

// Append implements [codec.Codec].
func (t Text) Append(dst []byte, v string) ([]byte, error) {
	if !utf8.ValidString(v) {
		return dst, &codec.Error{Op: "encode", ContentType: t.ContentType(), Offset: invalidAt(v), Err: errUTF8}
	}
	if dst == nil {
		dst = make([]byte, 0, len(v))
	}
	return append(dst, v...), nil
}

// Decode implements [codec.Codec].
func (t Text) Decode(src []byte, v *string) error {
	if !utf8.Valid(src) {
		return &codec.Error{Op: "decode", ContentType: t.ContentType(), Offset: invalidAt(string(src)), Err: errUTF8}
	}
	*v = string(src)
	return nil
}

// ContentType implements [codec.Codec].
func (Text) ContentType() string { return "text/plain; charset=utf-8" }

func invalidAt(s string) int64 {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return int64(i)
			}
		}
	}
	return -1
}
