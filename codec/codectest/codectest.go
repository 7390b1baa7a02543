// Package codectest is the law for codecs: what package codec promises of every one, as a function that a codec's test calls.
package codectest

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"sync"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
)

// Check tries c on values and returns all violations of the contract of [codec.Codec], joined, or nil. equal compares two values. Give at least
// the zero value, an empty one and a large one. Bodies are also cut, extended and damaged, so that each value is decoded some hundred times; run
// it under the race detector, since it uses c from several goroutines.
func Check[T any](c codec.Codec[T], equal func(a, b T) bool, values ...T) error {
	l := &law[T]{c: c, equal: equal}
	if _, _, err := mime.ParseMediaType(c.ContentType()); err != nil {
		l.fault("ContentType %q: %v", c.ContentType(), err)
	}
	if len(values) == 0 {
		l.fault("no values")
	}
	bodies := make([][]byte, len(values))
	for i, v := range values {
		body, err := c.Append(nil, v)
		if err != nil {
			l.fault("value %d: Append: %v", i, err)
			continue
		}
		bodies[i] = body
		l.prefix(i, v, body)
		l.decode(i, v, values[(i+1)%len(values)], body)
		l.message(i, v)
		l.damage(i, v, body)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, v := range values {
				var got T
				if body, err := c.Append(nil, v); err == nil && (c.Decode(body, &got) != nil || !equal(got, v)) {
					l.fault("value %d: concurrent use changes the result", i)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(l.errs...)
}

type law[T any] struct {
	c     codec.Codec[T]
	equal func(a, b T) bool

	mu   sync.Mutex // protects errs
	errs []error
}

func (l *law[T]) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

// prefix: Append leaves what is in dst, with and without room behind it.
func (l *law[T]) prefix(i int, v T, body []byte) {
	for _, room := range []int{0, 1, len(body) + 16} {
		dst := append(make([]byte, 0, len("prefix")+room), "prefix"...)
		out, err := l.c.Append(dst, v)
		if err != nil || !bytes.HasPrefix(out, []byte("prefix")) || string(dst) != "prefix" {
			l.fault("value %d: Append with %d bytes of room: prefix %q, %v", i, room, out[:min(len(out), 6)], err)
			continue
		}
		src := out[len("prefix"):]
		if body == nil && len(src) == 0 {
			src = nil // a value that stands for no body, behind a prefix
		}
		var got T
		if err := l.c.Decode(src, &got); err != nil || !l.equal(got, v) {
			l.fault("value %d: Append with %d bytes of room encodes something else: %v", i, room, err)
		}
	}
}

// decode: overwrites, doesn't change src, keeps none of it.
func (l *law[T]) decode(i int, v, other T, body []byte) {
	src := bytes.Clone(body)
	for _, got := range []T{*new(T), other} {
		if err := l.c.Decode(src, &got); err != nil || !l.equal(got, v) {
			l.fault("value %d: Decode gives another value: %v", i, err)
			return
		}
		if !bytes.Equal(src, body) {
			l.fault("value %d: Decode changes src", i)
			return
		}
		for j := range src {
			src[j] ^= 0xff
		}
		if !l.equal(got, v) {
			l.fault("value %d: the value shares bytes with src", i)
		}
		copy(src, body)
	}
}

// message: through the functions of package codec.
func (l *law[T]) message(i int, v T) {
	m := stagebus.Message{ContentEncoding: "zstd", ContentType: "image/png"}
	if err := codec.Encode(l.c, v, &m); err != nil {
		l.fault("value %d: Encode: %v", i, err)
		return
	}
	if got, err := codec.Decode(l.c, &m); err != nil || !l.equal(got, v) {
		l.fault("value %d: through a message: %v", i, err)
	}
}

// damage: a body cut, extended or changed is an error with its place that leaves the value, or another value; never a panic.
func (l *law[T]) damage(i int, v T, body []byte) {
	try := func(what string, at int, src []byte) {
		got := v
		defer func() {
			if p := recover(); p != nil {
				l.fault("value %d, %s at %d: panic: %v", i, what, at, p)
			}
		}()
		err := l.c.Decode(src, &got)
		if err == nil {
			return
		}
		if !l.equal(got, v) {
			l.fault("value %d, %s at %d: the value changed in spite of %v", i, what, at, err)
		}
		var e *codec.Error
		if !errors.As(err, &e) || !errors.Is(err, stagebus.ErrInvalid) || e.Op != "decode" || e.ContentType != l.c.ContentType() ||
			e.Offset < -1 || e.Offset > int64(len(src)) || len(err.Error()) > 1024 {
			l.fault("value %d, %s at %d: not a *codec.Error with a place in %d bytes and a short text: %v", i, what, at, len(src), err)
		}
	}
	step := max(len(body)/100, 1)
	for at := 0; at < len(body); at += step {
		try("cut", at, body[:at:at])
		for _, b := range []byte{0x00, 0xff, '"', body[at] ^ 1} {
			bad := bytes.Clone(body)
			bad[at] = b
			try("changed", at, bad)
		}
	}
	try("extended", len(body), append(bytes.Clone(body), 0xff, 0, '}'))
}
