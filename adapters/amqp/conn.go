package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// wire is the socket under a session. It is owned, since the client library gives its own calls no time-out: a stuck write
// holds a lock there that even closing needs, and only closing the socket from outside frees it.
type wire struct {
	net.Conn
	stall   time.Duration // how long it may take nothing
	silence atomic.Int64  // a time.Duration: how long it may give nothing, once that is agreed on
	blocked atomic.Bool   // the broker said that it reads nothing for now
}

// Read fails once the peer has been silent for too long.
func (w *wire) Read(b []byte) (int, error) {
	if d := w.silence.Load(); d > 0 {
		if err := w.Conn.SetReadDeadline(time.Now().Add(time.Duration(d))); err != nil {
			return 0, err
		}
	}
	return w.Conn.Read(b)
}

// expect bounds the peer's silence from now on, also for the Read that is under way.
func (w *wire) expect(d time.Duration) {
	w.silence.Store(int64(d))
	if d > 0 {
		_ = w.Conn.SetReadDeadline(time.Now().Add(d)) // if the socket is closed, that Read says so
	}
}

// SetReadDeadline does nothing: the library's goroutine that would move the deadline is the one that sends heartbeats, and waits behind a write
// to a blocked broker, whose own heartbeats still come.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// Write fails once the peer takes no byte for a while. A broker that said it is blocked is left alone: whether it lives is
// told by its heartbeats, which time out the reading side.
func (w *wire) Write(b []byte) (int, error) {
	n := 0
	for {
		if err := w.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
			return n, err
		}
		k, err := w.Conn.Write(b[n:])
		n += k
		if errors.Is(err, os.ErrDeadlineExceeded) && (k > 0 || w.blocked.Load()) && n < len(b) {
			continue
		}
		return n, err
	}
}

// connect opens the socket to one address, and TLS on top of it. The handshakes end with ctx. What is returned beside the wire is
// what the protocol is spoken on: where writes are to be gathered, that goes between, above TLS.
func (c *config) connect(ctx context.Context, address string) (*wire, net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	w := &wire{Conn: raw, stall: writeTimeout}
	if c.TLS == nil {
		return w, w, nil
	}
	conf := c.TLS.Clone()
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(w, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return w, secure, nil
}
