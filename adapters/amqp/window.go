package amqp

import (
	"context"
	"sync"

	"github.com/stagebus/stagebus"
)

// window bounds what a publisher holds, by messages and bytes. Those who wait get in in the order in which they came.
type window struct {
	size     int // messages
	mu       sync.Mutex
	messages int // free
	bytes    int // free
	capacity int // of bytes
	queue    []*entrant
}

type entrant struct {
	size int
	in   chan struct{}
}

func newWindow(messages, bytes int) *window {
	return &window{size: messages, messages: messages, bytes: bytes, capacity: bytes}
}

// enter waits for room for one message of that size; a larger one than the window has bytes enters alone. It fails when ctx ends
// or closed is closed.
func (w *window) enter(ctx context.Context, closed <-chan struct{}, size int) error {
	size = min(size, w.capacity)
	w.mu.Lock()
	if len(w.queue) == 0 && w.fits(size) {
		w.take(size)
		w.mu.Unlock()
		return nil
	}
	e := &entrant{size: size, in: make(chan struct{})}
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	var err error
	select {
	case <-e.in:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-closed:
		err = stagebus.ErrClosed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.queue {
		if w.queue[i] == e {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			w.admit() // those behind may be smaller
			return err
		}
	}
	w.give(size) // it was let in just now
	return err
}

// leave gives the room of one message back.
func (w *window) leave(size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.give(min(size, w.capacity))
}

func (w *window) fits(size int) bool { return w.messages > 0 && w.bytes >= size }

func (w *window) take(size int) { w.messages, w.bytes = w.messages-1, w.bytes-size }

func (w *window) give(size int) {
	w.messages, w.bytes = w.messages+1, w.bytes+size
	w.admit()
}

func (w *window) admit() {
	for len(w.queue) > 0 && w.fits(w.queue[0].size) {
		w.take(w.queue[0].size)
		close(w.queue[0].in)
		w.queue = w.queue[1:]
	}
}
