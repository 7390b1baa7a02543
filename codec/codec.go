// Package codec turns values into message bodies and back. A [Codec] knows one Go type and one media type; [Encode] and [Decode] put it
// together with a message: they set and check the content type, so that a stage that gets JSON where it expects something else says so
// instead of reading garbage.
//
// The codecs themselves are the packages below: raw and json.
package codec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stagebus/stagebus"
)

// Codec is the encoding of values of one type. All methods are safe for concurrent use, also with the same value.
type Codec[T any] interface {
	// Append appends the encoding of v to dst and returns the extended slice, which may have moved. It doesn't keep or change v, and neither
	// bytes of dst nor of the result. What was encoded is never a nil body, unless the nil value of T stands for one (raw.Bytes). An error,
	// normally an *[Error], comes with dst as it was.
	Append(dst []byte, v T) ([]byte, error)

	// Decode reads all of src, and nothing after it, into *v. It overwrites *v, doesn't merge, and leaves it as it was if there is an
	// error, normally an *[Error] with the offset in src. src is not changed and *v shares no bytes with it. What a hostile src can make
	// it allocate is bounded by a multiple of len(src).
	Decode(src []byte, v *T) error

	// ContentType is the media type that is written to messages, such as "application/json". It may have parameters, and is always
	// the same.
	ContentType() string
}

// Why a body was not even looked at, to be tested with errors.Is.
var (
	// ErrContentType: the message's content type is not the codec's. Use the codec for it, or Reject the message.
	ErrContentType = errors.New("another content type")
	// ErrContentEncoding: something that the message's content encoding names, compression for example, was not undone. Add the
	// middleware that does, or Reject the message.
	ErrContentEncoding = errors.New("the content encoding was not undone")
)

// Error says why a value could not be encoded, or a body not be decoded. Its text is short, whatever the body is like, so that it can be the
// reason of a dead letter; it may have a name or a number out of the body.
type Error struct {
	Op          string // "encode" or "decode"
	ContentType string // the codec's
	Offset      int64  // in the body, from 0: the fault, or the end of the value with it; -1 where that isn't known
	Err         error  // the cause
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s %s: %v", e.Op, e.ContentType, e.Err)
	}
	return fmt.Sprintf("%s %s: at byte %d: %v", e.Op, e.ContentType, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, stagebus.ErrInvalid) true: sending or receiving it again won't help.
func (e *Error) Is(target error) bool { return target == stagebus.ErrInvalid }

// Encode makes the encoding of v the body of m, sets ContentType, and empties ContentEncoding, which was that of another body. On an error m
// is as it was. The body is a new one: m may be a received message.
func Encode[T any](c Codec[T], v T, m *stagebus.Message) error {
	body, err := c.Append(nil, v)
	if err != nil {
		return err
	}
	m.Body, m.ContentType, m.ContentEncoding = body, c.ContentType(), ""
	return nil
}

// Decode returns the value that is the body of m, which is not changed. For a delivery, look at its Err first, and then give it &d.Message.
//
// The message's content type must be that of the codec. Parameters and the case of letters don't matter; application/problem+json is
// application/json; no content type is anything, since pika and kafka-python set none; and application/octet-stream, as a codec's, takes
// anything. Any content encoding must have been undone; "identity" is none, and neither are "utf-8" and "binary", which Kombu and Spring
// put there for the character set.
func Decode[T any](c Codec[T], m *stagebus.Message) (T, error) {
	var v T
	own := c.ContentType()
	if !accepts(own, m.ContentType) {
		return v, &Error{Op: "decode", ContentType: own, Offset: -1, Err: fmt.Errorf("%w: %q", ErrContentType, short(m.ContentType))}
	}
	if !plain(m.ContentEncoding) {
		return v, &Error{Op: "decode", ContentType: own, Offset: -1, Err: fmt.Errorf("%w: %q", ErrContentEncoding, short(m.ContentEncoding))}
	}
	err := c.Decode(m.Body, &v)
	return v, err
}

// short cuts what a stranger wrote.
func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:61], "") + "..."
	}
	return s
}

func accepts(codec, message string) bool {
	if message == "" {
		return true
	}
	own, got := essence(codec), essence(message)
	if own == got || own == "application/octet-stream" {
		return true
	}
	// RFC 6839: application/NAME+json can be read as application/json.
	base, ok := strings.CutPrefix(own, "application/")
	return ok && base != "" && strings.HasSuffix(got, "+"+base)
}

// essence is a media type without parameters, in lower case. mime.ParseMediaType would refuse one for a malformed parameter, which is no
// reason to refuse the message.
func essence(mediaType string) string {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}

func plain(encodings string) bool {
	if encodings == "" {
		return true
	}
	for token := range strings.SplitSeq(encodings, ",") {
		switch strings.ToLower(strings.TrimSpace(token)) {
		case "", "identity", "utf-8", "binary":
		default:
			return false
		}
	}
	return true
}
