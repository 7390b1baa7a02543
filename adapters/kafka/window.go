package kafka

import (
	"context"
	"sync"

	"github.com/stagebus/stagebus"
)

// window bounds messages and bytes on their way. Who asks first is admitted first; who asks for more than all of it waits
// until it is empty and goes alone.
type window struct {
	mu             sync.Mutex
	n, bytes       int // free
	allN, allBytes int
	queue          []*admission
	closed         bool
	empty          chan struct{} // closed once closed and all is free
}

type admission struct {
	n, bytes int
	ready    chan struct{}
	admitted bool
}

func newWindow(n, bytes int) *window {
	return &window{n: n, bytes: bytes, allN: n, allBytes: bytes, empty: make(chan struct{})}
}

// enter waits for room and runs f, which must not block, while nobody else can enter. f gets what to leave with.
func (w *window) enter(ctx context.Context, n, bytes int, f func(n, bytes int)) error {
	a := &admission{n: min(n, w.allN), bytes: min(bytes, w.allBytes), ready: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return stagebus.ErrClosed
	}
	w.queue = append(w.queue, a)
	w.admit()
	if a.admitted {
		defer w.mu.Unlock()
		f(a.n, a.bytes)
		return nil
	}
	w.mu.Unlock()
	select {
	case <-a.ready:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed && !a.admitted:
		return stagebus.ErrClosed
	case ctx.Err() != nil:
		w.drop(a)
		return context.Cause(ctx)
	}
	f(a.n, a.bytes)
	return nil
}

func (w *window) admit() {
	for len(w.queue) > 0 {
		a := w.queue[0]
		if a.n > w.n || a.bytes > w.bytes {
			return
		}
		w.n -= a.n
		w.bytes -= a.bytes
		a.admitted = true
		close(a.ready)
		w.queue = w.queue[1:]
	}
}

func (w *window) drop(a *admission) {
	if a.admitted {
		w.n += a.n
		w.bytes += a.bytes
	}
	for i, q := range w.queue {
		if q == a {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			break
		}
	}
	w.admit()
	w.signal()
}

func (w *window) leave(n, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += n
	w.bytes += bytes
	w.admit()
	w.signal()
}

// close refuses who waits and who comes, and returns a channel that is closed when all have left.
func (w *window) close() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		for _, a := range w.queue {
			close(a.ready)
		}
		w.queue = nil
		w.signal()
	}
	return w.empty
}

func (w *window) signal() {
	if w.closed && w.n == w.allN && w.bytes == w.allBytes {
		select {
		case <-w.empty:
		default:
			close(w.empty)
		}
	}
}
