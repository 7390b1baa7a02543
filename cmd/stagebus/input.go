package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/stagebus/stagebus"
)

// input yields messages in order. It is used by one goroutine.
type input interface {
	// next waits for a message. io.EOF is the end, any other error is final.
	next() (item, error)
	// ready tells whether next would return without waiting for anybody.
	ready() bool
	// progress tells how many bytes have been read, of how many; 0 if that isn't known. It may be called at any time.
	progress() (read, total int64)
}

// progressed is the progress of an input.
type progressed struct {
	read  atomic.Int64
	total int64
}

func (p *progressed) progress() (read, total int64) { return p.read.Load(), p.total }

// count returns r, with what is read from it counted.
func (p *progressed) count(r io.Reader) io.Reader { return &counting{r, &p.read} }

type counting struct {
	io.Reader
	n *atomic.Int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// rest is how many bytes are left to be read from r, if it is a regular file; otherwise 0.
func rest(r io.Reader) int64 {
	f, ok := r.(*os.File)
	if !ok {
		return 0
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return max(info.Size()-at, 0)
}

// item is a message and where it came from, for errors.
type item struct {
	stagebus.Message
	from origin
}

// origin is a place in the input.
type origin struct {
	file string // empty: standard input, or an argument if line is 0 as well
	line int    // from 1; 0: all of the file
}

func (o origin) String() string {
	switch {
	case o.file == "" && o.line == 0:
		return ""
	case o.file == "":
		return fmt.Sprintf("line %d", o.line)
	case o.line == 0:
		return fmt.Sprintf("%q", o.file)
	}
	return fmt.Sprintf("%q line %d", o.file, o.line)
}

// wrap says where err happened.
func (o origin) wrap(err error) error {
	if s := o.String(); s != "" {
		return fmt.Errorf("%s: %w", s, err)
	}
	return err
}

// bad is wrap for what is wrong with the input itself.
func (o origin) bad(err error) error { return o.wrap(&inputError{err}) }

// inputError is about what is to be published, not about the broker.
type inputError struct{ err error }

func (e *inputError) Error() string { return e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// single is an input of one message.
type single struct {
	item
	done bool
}

func (s *single) next() (item, error) {
	if s.done {
		return item{}, io.EOF
	}
	s.done = true
	return s.item, nil
}

func (s *single) ready() bool { return true }

func (s *single) progress() (read, total int64) { return 0, 0 }

// lines reads one message from each line, of any length up to max. A last line without a line feed is a line; an empty line is an
// empty body, but nothing where lines are records.
type lines struct {
	progressed
	file    string
	r       *bufio.Reader
	max     int
	records bool
	n       int // lines read
}

func newLines(file string, r io.Reader, limit int, records bool) *lines {
	l := &lines{file: file, max: limit, records: records}
	l.total = rest(r)
	l.r = bufio.NewReaderSize(l.count(r), 64<<10)
	return l
}

func (l *lines) next() (item, error) {
	for {
		line, err := l.read()
		at := origin{l.file, l.n}
		switch {
		case errors.Is(err, io.EOF):
			return item{}, io.EOF
		case err != nil:
			return item{}, at.bad(err)
		case !l.records:
			return item{stagebus.Message{Body: line}, at}, nil
		case len(bytes.TrimSpace(line)) == 0:
			continue
		}
		m, err := decodeRecord(line)
		if err != nil {
			return item{}, at.bad(err)
		}
		return item{m, at}, nil
	}
}

// read returns a line without its line feed, in memory of its own.
func (l *lines) read() ([]byte, error) {
	l.n++
	line := []byte{} // an empty line is an empty body, and nil would be a tombstone
	for {
		part, err := l.r.ReadSlice('\n')
		if len(line)+len(bytes.TrimSuffix(part, []byte("\n"))) > l.max {
			return nil, tooLong(l.max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		default:
			return nil, err
		}
	}
}

func (l *lines) ready() bool {
	b, _ := l.r.Peek(l.r.Buffered()) // never waits: it is there
	return bytes.IndexByte(b, '\n') >= 0
}

func tooLong(limit int) error {
	return fmt.Errorf("longer than %d bytes: raise --max-bytes", limit)
}

// files reads one file after the other: each is a message, or has records on its lines.
type files struct {
	names   []string
	max     int
	records bool
	current *lines
	file    *os.File // of current
	progressed
}

func newFiles(names []string, limit int, records bool) *files {
	f := &files{names: names, max: limit, records: records}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() { // next will say so
			f.total = 0
			break
		}
		f.total += info.Size()
	}
	return f
}

func (f *files) next() (item, error) {
	for {
		if f.current != nil {
			it, err := f.current.next()
			if !errors.Is(err, io.EOF) {
				return it, err
			}
			f.current = nil
			if err := f.file.Close(); err != nil {
				return item{}, err
			}
		}
		if len(f.names) == 0 {
			return item{}, io.EOF
		}
		name := f.names[0]
		f.names = f.names[1:]
		file, err := os.Open(name)
		if err != nil {
			return item{}, &inputError{fmt.Errorf("--file: %w", err)}
		}
		if !f.records {
			return f.whole(name, file)
		}
		f.current, f.file = newLines(name, f.count(file), f.max, true), file
	}
}

func (f *files) whole(name string, file *os.File) (item, error) {
	defer file.Close() //nolint:errcheck // it was only read
	at := origin{file: name}
	body, err := io.ReadAll(io.LimitReader(f.count(file), int64(f.max)+1))
	if err == nil && len(body) > f.max {
		err = tooLong(f.max)
	}
	if err != nil {
		return item{}, at.bad(err)
	}
	return item{stagebus.Message{Body: body}, at}, nil
}

// ready is true: files are not waited for.
func (f *files) ready() bool { return true }
