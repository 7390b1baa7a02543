package amqp

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stagebus/stagebus"
)

func testPublisher(t *testing.T) *publisher {
	t.Helper()
	d, err := newDriver(Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d.newPublisher(10, 1000, 1)
}

func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestPublisherSubmitBesideClose(t *testing.T) {
	for range 500 {
		p := testPublisher(t)
		outcomes := make(chan int, 4)
		var wg sync.WaitGroup
		wg.Go(func() {
			pubs := []publication{{topic: "t", size: 1}, {topic: "t", size: 1}}
			err := p.submit(t.Context(), pubs, func(os []stagebus.Outcome) { outcomes <- len(os) })
			if err != nil {
				outcomes <- 0
			}
		})
		_ = p.close(ended(t)) // whether it was late is another matter
		wg.Wait()
		if len(outcomes) != 1 {
			t.Fatalf("%d outcomes", len(outcomes))
		}
	}
}

func TestPublisherCloseIdle(t *testing.T) {
	for range 100 {
		if err := testPublisher(t).close(ended(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlushTellsOfLossLater(t *testing.T) {
	d, err := newDriver(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := testLane(newStrict())
	l.s = &session{config: d.config, done: make(chan struct{})}
	c := l.c
	c.d, c.wake, c.lost = d, make(chan struct{}, 1), 3
	c.lanes[l] = struct{}{}
	if err := c.Flush(ended(t)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	delete(c.lanes, l)
	if err := c.Flush(t.Context()); !errors.Is(err, stagebus.ErrStale) {
		t.Errorf("3 settlements were lost: %v", err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Errorf("told twice: %v", err)
	}
}
