package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

// leaving is standard output whose reader takes some writes and leaves.
type leaving struct{ takes int }

func (l *leaving) Write(b []byte) (int, error) {
	if l.takes--; l.takes < 0 {
		return 0, &os.PathError{Op: "write", Err: syscallEPIPE}
	}
	return len(b), nil
}

// That a reader has left is no failure, and hides none.
func TestReaderLeavesFailures(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "result.json")
	for _, c := range []struct {
		takes int
		args  []string
		code  int
		err   string
	}{
		{0, []string{"doctor", "amqp://127.0.0.1:1/"}, exitFailure, "failed: tcp at amqp://127.0.0.1:1/"},
		{0, []string{"doctor", "amqp://127.0.0.1:1/", "-o", "json"}, exitFailure, "failed: tcp at amqp://127.0.0.1:1/"},
		{0, []string{"doctor", w.url}, exitOK, ""},
		{1, benchArgs("publish", "--save", file, "-q"), exitOK, ""},
	} {
		t.Run(strings.Join(c.args[:2], " "), func(t *testing.T) {
			var errs bytes.Buffer
			code := run(t.Context(), c.args, streams{strings.NewReader(""), &leaving{c.takes}, &errs, brokerAt(w.url)})
			if code != c.code || !strings.Contains(errs.String(), c.err) || c.err == "" && errs.Len() > 0 {
				t.Errorf("exit code %d, standard error %q", code, &errs)
			}
		})
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the result is lost: %v", err)
	}
}

// What the reader took and the broker doesn't know of comes again: a failure, though the reader has left.
func TestReaderLeavesUnsettled(t *testing.T) {
	lost := errors.New("not settled")
	c := &fakeConsumer{deliveries: make([]stagebus.Delivery, 2), settle: lost}
	r := &reader{c: c, out: newPrinter(half{}, raw, true), limit: 2, dst: make([]stagebus.Delivery, 2)}
	err := r.verdict(r.run(t.Context(), 0))
	if !errors.Is(err, errReaderLeft) || !errors.Is(besides(err, errReaderLeft), lost) {
		t.Errorf("got %v", err)
	}
	if err := besides(errors.Join(errReaderLeft, errors.Join(nil, errReaderLeft)), errReaderLeft); err != nil {
		t.Errorf("got %v", err)
	}
}

// half takes one byte of a write, which is a message without a body, and leaves.
type half struct{}

func (half) Write([]byte) (int, error) { return 1, io.ErrClosedPipe }
