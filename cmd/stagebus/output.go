package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/stagebus/stagebus"
)

// formatter appends a delivery to b as it is printed.
type formatter func(b *bytes.Buffer, d *stagebus.Delivery) error

// formatter returns what --format and --template say. Without them it is raw, or json with --output json.
func (o *consumeFlags) formatter(terminal, results bool) (formatter, error) {
	switch {
	case o.template != "" && o.format != "" && o.format != "template":
		return nil, fmt.Errorf("--template with --format %s: leave out one of them", o.format)
	case o.format == "template" && o.template == "":
		return nil, errors.New("--format template needs --template, such as '{{.Key}} {{.Body}}'")
	case o.template != "":
		return templated(o.template)
	case o.format == "json", o.format == "" && results:
		return func(b *bytes.Buffer, d *stagebus.Delivery) error {
			r := deliveryRecord(d)
			return encodeRecord(b, &r)
		}, nil
	case o.format == "" && terminal:
		return cautious, nil
	}
	return raw, nil
}

func raw(b *bytes.Buffer, d *stagebus.Delivery) error {
	b.Write(d.Body)
	b.WriteByte('\n')
	return nil
}

// cautious is raw for a terminal, which control characters of a body would command.
func cautious(b *bytes.Buffer, d *stagebus.Delivery) error {
	if printable(d.Body) {
		return raw(b, d)
	}
	fmt.Fprintf(b, "(%d bytes that aren't text: --format raw prints them as they are, --format json in base64)\n", len(d.Body))
	return nil
}

func printable(body []byte) bool {
	return utf8.Valid(body) && !bytes.ContainsFunc(body, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	})
}

// printer writes deliveries and knows which of them are out.
type printer struct {
	out    io.Writer
	format formatter
	pipe   *pipe // not nil: wait until the reader has taken each message
	buf    bytes.Buffer
	ends   []int // of the messages in buf
}

// newPrinter returns a printer to out. settles: what is printed is lost to others, so it matters whether it has been read.
func newPrinter(out io.Writer, format formatter, settles bool) *printer {
	p := &printer{out: out, format: format}
	if settles {
		p.pipe = newPipe(out)
	}
	return p
}

// writeBytes bounds what is formatted before it is written.
const writeBytes = 1 << 20

// print writes one or more of ds and returns how many are out: all of their bytes written and, in a pipe, taken. After an error the
// rest is not out, though a part of the next may be.
func (p *printer) print(ctx context.Context, ds []stagebus.Delivery) (int, error) {
	p.buf.Reset()
	p.ends = p.ends[:0]
	var failure error
	for i := range ds {
		start := p.buf.Len()
		if err := p.format(&p.buf, &ds[i]); err != nil {
			p.buf.Truncate(start)
			failure = fmt.Errorf("print a message of %q: %w", ds[i].Topic, err)
			break
		}
		p.ends = append(p.ends, p.buf.Len())
		if p.pipe != nil || p.buf.Len() >= writeBytes {
			break
		}
	}
	written, err := p.out.Write(p.buf.Bytes())
	if err == nil && p.pipe != nil && len(p.ends) > 0 {
		err = p.pipe.taken(ctx)
		if err != nil {
			written = 0
		}
	}
	if p.buf.Cap() > 4*writeBytes {
		p.buf = bytes.Buffer{} // one huge message must not be remembered for ever
	}
	n := 0
	for n < len(p.ends) && p.ends[n] <= written {
		n++
	}
	if err != nil {
		failure = outputError(err)
	}
	return n, failure
}

// outputError tells a reader who has seen enough from a write that failed.
func outputError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return errReaderLeft
	case errors.Is(err, errInterrupted):
		return err
	}
	return fmt.Errorf("standard output: %w", err)
}

// reported is standard output for what cobra prints.
type reported struct{ w io.Writer }

func (r reported) Write(b []byte) (int, error) {
	n, err := r.w.Write(b)
	return n, outputError(err)
}
