package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipe watches the pipe that standard output may be. What has been written to it is in the kernel, up to 64 KiB, and lost when its
// reader leaves: `| head -1` would eat hundreds of messages. Waiting until the pipe is empty tells what the reader has taken, and
// writing one message at a time keeps a reader that reads blocks from taking more than it wants.
type pipe struct {
	conn syscall.RawConn
	off  bool // the reader doesn't read: perhaps it waits for our end, so we must not wait for it
}

const (
	// patience is how long a reader may leave the pipe alone until it is taken for one that reads at the end only.
	patience = 3 * time.Second
	// lastChance is how long a reader has after an interrupt to take what is in the pipe. One that is there takes it at once, and then the
	// message doesn't come again.
	lastChance = 500 * time.Millisecond
	// A reader that waits in read empties the pipe in microseconds: it is asked about that often before the first nap.
	spins             = 50
	shortNap, longNap = 20 * time.Microsecond, time.Millisecond
)

// newPipe returns nil if w isn't a pipe.
func newPipe(w io.Writer) *pipe {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	return &pipe{conn: conn}
}

// taken returns once the reader has emptied the pipe, with EPIPE if it has left instead, or with the cause soon after ctx ends.
func (p *pipe) taken(ctx context.Context) error {
	if p.off {
		return nil
	}
	began, nap := time.Now(), time.Duration(0)
	var interrupted time.Time
	for i := 0; ; i++ {
		if i > spins {
			nap = min(max(shortNap, 2*nap), longNap)
		}
		left, empty, err := p.look(nap)
		switch {
		case err != nil: // it can't be watched: what is written counts
			p.off = true
			return nil
		case empty:
			return nil
		case left:
			return unix.EPIPE
		case ctx.Err() != nil && interrupted.IsZero():
			interrupted = time.Now()
		case ctx.Err() != nil && time.Since(interrupted) > lastChance:
			return context.Cause(ctx)
		case nap > 0 && time.Since(began) > patience:
			p.off = true
			return nil
		}
	}
}

// look asks the kernel, after a nap that the reader's leaving ends.
func (p *pipe) look(nap time.Duration) (left, empty bool, err error) {
	cerr := p.conn.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // no events are asked for: errors and hang-ups come anyway
		limit := unix.NsecToTimespec(int64(nap))
		if _, err = unix.Ppoll(fds, &limit, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		left = fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
		var unread int
		unread, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD: works at either end
		empty = unread == 0
	})
	if err == nil {
		err = cerr
	}
	return left, empty, err
}
