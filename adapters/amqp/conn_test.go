package amqp

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// stuck takes some bytes at a time, and then none before the deadline.
type stuck struct {
	net.Conn
	takes []int // by write
	got   []byte
}

func (s *stuck) SetWriteDeadline(time.Time) error { return nil }
func (s *stuck) Write(b []byte) (int, error) {
	n := 0
	if len(s.takes) > 0 {
		n = min(s.takes[0], len(b))
		s.takes = s.takes[1:]
	}
	s.got = append(s.got, b[:n]...)
	if n < len(b) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func TestWireWrite(t *testing.T) {
	for _, c := range []struct {
		name    string
		takes   []int
		blocked bool
		n       int
		err     error
	}{
		{"whole", []int{5}, false, 5, nil},
		{"slow", []int{1, 1, 3}, false, 5, nil},
		{"stalled", []int{2, 0, 3}, false, 2, os.ErrDeadlineExceeded},
		{"stalled at once", nil, false, 0, os.ErrDeadlineExceeded},
		{"blocked by the broker", []int{0, 2, 0, 0, 3}, true, 5, nil},
	} {
		s := &stuck{takes: c.takes}
		w := &wire{Conn: s}
		w.blocked.Store(c.blocked)
		n, err := w.Write([]byte("abcde"))
		if n != c.n || !errors.Is(err, c.err) || string(s.got) != "abcde"[:n] {
			t.Errorf("%s: %d, %v, %q", c.name, n, err, s.got)
		}
	}
}
