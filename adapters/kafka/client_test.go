package kafka

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A caller that gives up must know whether its request can still arrive: before the first byte it can't, and then never does; once a write has
// begun it can, also when the caller gives up in the middle of it.
func TestExchangeKnowsWhetherItLeft(t *testing.T) {
	x := &exchange{}
	var sent bytes.Buffer
	w := &noteWrites{w: &sent, state: &x.state}
	if !x.state.CompareAndSwap(exchangeNew, exchangeAbandoned) {
		t.Fatal("a new exchange can't be given up")
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, errAbandoned) || sent.Len() != 0 {
		t.Errorf("given up, and %d bytes were written: %v", sent.Len(), err)
	}

	x = &exchange{}
	during := int32(-1)
	w = &noteWrites{state: &x.state, w: writerFunc(func(b []byte) (int, error) {
		if x.state.CompareAndSwap(exchangeNew, exchangeAbandoned) {
			t.Error("given up in the middle of a write")
		}
		during = x.state.Load()
		return 0, io.ErrClosedPipe
	})}
	_, _ = w.Write([]byte("x")) // the error is the writer's
	if during != exchangeWriting || x.state.Load() != exchangeWriting {
		t.Errorf("states %d and %d, want writing: nobody knows what left", during, x.state.Load())
	}

	x = &exchange{}
	w = &noteWrites{state: &x.state, w: writerFunc(func([]byte) (int, error) { return 0, errNotWritten })}
	_, _ = w.Write([]byte("x")) // the error is the writer's
	if x.state.Load() != exchangeUnwritten {
		t.Errorf("state %d after a write to a dead connection", x.state.Load())
	}
}
