package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stagebus/stagebus"
)

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		never := make(chan struct{})
		w := newWindow(2, 100)
		enter := func(ctx context.Context, size int) <-chan error {
			c := make(chan error, 1)
			go func() { c <- w.enter(ctx, never, size) }()
			synctest.Wait()
			return c
		}
		in := func(c <-chan error) bool {
			select {
			case err := <-c:
				if err != nil {
					t.Error(err)
				}
				return true
			default:
				return false
			}
		}
		if !in(enter(ctx, 60)) {
			t.Fatal("an empty window has no room")
		}
		large, small := enter(ctx, 50), enter(ctx, 1)
		if in(large) || in(small) {
			t.Fatal("beyond the bytes, or past those who wait")
		}
		w.leave(60)
		synctest.Wait()
		if !in(large) || !in(small) {
			t.Fatal("room isn't given on")
		}
		third := enter(ctx, 1)
		if in(third) {
			t.Fatal("more messages than the window has")
		}
		w.leave(50)
		w.leave(1)
		synctest.Wait()
		if !in(third) {
			t.Fatal("room isn't given on")
		}
		w.leave(1)
		if !in(enter(ctx, 1000)) {
			t.Fatal("a larger one than the window doesn't go alone")
		}
		giveUp, cancel := context.WithCancelCause(ctx)
		first, behind := enter(giveUp, 80), enter(ctx, 1)
		cause := errors.New("no patience")
		cancel(cause)
		if err := <-first; !errors.Is(err, cause) {
			t.Fatal(err)
		}
		w.leave(1000)
		synctest.Wait()
		if !in(behind) {
			t.Fatal("who gave up keeps the room")
		}
		w.leave(1)
		if w.messages != 2 || w.bytes != 100 || len(w.queue) != 0 {
			t.Errorf("%+v", w)
		}
	})
}

func TestWindowClosed(t *testing.T) {
	w := newWindow(1, 1)
	if err := w.enter(context.Background(), nil, 1); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	close(closed)
	if err := w.enter(context.Background(), closed, 1); !errors.Is(err, stagebus.ErrClosed) {
		t.Error(err)
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff{}
		last := b.span()
		if last != backoffFirst {
			t.Error(last)
		}
		for range 100 {
			next := b.span()
			if next < last || next > backoffLast {
				t.Fatalf("%v after %v", next, last)
			}
			last = next
		}
		if last != backoffLast {
			t.Error(last)
		}
		if b = (backoff{limit: backoffMissing, n: 8}); b.span() != backoffMissing || !b.sleep(context.Background()) {
			t.Error("the limit isn't kept")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b = backoff{n: 8}
		if b.sleep(ctx) {
			t.Error("slept although the context had ended") // a random pause of 0 is one in 10^10
		}
	})
}
