package amqp

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/rabbitmq/amqp091-go"
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

// A Submit beside a Close that has no time is refused, or its messages have their outcomes, once.
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

// Nothing is uncertain where nothing was on its way, even when there is no time.
func TestPublisherCloseIdle(t *testing.T) {
	for range 100 {
		if err := testPublisher(t).close(ended(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// When Close gives up what is late, nothing may be sent behind it any more.
func TestPublisherCloseLate(t *testing.T) {
	p := testPublisher(t)
	p.started = true // no pipe takes them
	err := p.submit(t.Context(), []publication{{topic: "t", size: 1}, {topic: "t", size: 1}}, func(os []stagebus.Outcome) {
		if p.ctx.Err() == nil {
			t.Error("given up while pipes send")
		}
		for _, o := range os {
			if !errors.Is(o.Err, stagebus.ErrClosed) {
				t.Error(o.Err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.close(ended(t)); !errors.Is(err, stagebus.ErrUncertain) {
		t.Error(err)
	}
}

// A Flush that ran out of time has told nothing: the next one tells of the settlements that were lost.
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

// A lane that ends makes room in the budget of bytes: whoever waits for that goes on.
func TestLaneEndMakesRoom(t *testing.T) {
	d, err := newDriver(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newStrict()
	full, other := testLane(b), testLane(b)
	c := full.c
	other.c = c
	c.d, c.wake, c.o = d, make(chan struct{}, 1), stagebus.ConsumerOptions{PrefetchBytes: 1}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	defer c.cancel()
	c.lanes[full], c.lanes[other] = struct{}{}, struct{}{}
	full.deliver(t, b, 1)
	c.arrive(arrival{other, arrived{raw: &amqp091.Delivery{DeliveryTag: 1}}, stagebus.Delivery{Message: stagebus.Message{Body: []byte("x")}}})
	if n, _, _ := c.take(make([]stagebus.Delivery, 1)); n != 0 {
		t.Fatal("there is no room")
	}
	<-c.wake // as the Receive did that found no room
	full.end(stagebus.ErrClosed)
	select {
	case <-c.wake:
	default:
		t.Error("nobody tells Receive that there is room now")
	}
}
