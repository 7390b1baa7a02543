package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
	"github.com/stagebus/stagebus/pipeline"
)

// TestChaos runs stages of one group whose handlers are slow, give back, retry, reject and panic, whose sends fail and are lost, and
// which are stopped at any moment, with and without time to drain; and keeps the books: every input has its outputs or is a dead letter;
// what was sent twice has a reason.
func TestChaos(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c := newChaos(t, seed)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { c.member(t) })
			}
			wg.Wait()
			c.check(t, seed)
		})
	}
}

const chaosKeys, chaosRounds = 12, 30

type chaos struct {
	b      *stagebus.Broker
	faults memorytest.Faults
	until  time.Time // then all goes well
	// ordered says that no handler gives up the order of its key, with Retry or Reject, or puts it into the broker's hands, with Release.
	ordered bool

	mu     sync.Mutex // protects the following
	random *rand.Rand
	begun  map[string]int // by ID
	lost   int            // sends that were said to be uncertain
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{ordered: seed%2 == 0, until: time.Now().Add(time.Minute), random: rand.New(rand.NewPCG(seed, 0)), begun: map[string]int{}}
	c.b = newBroker(t, memory.Options{Partitions: 4}, c.faults.Middleware())
	send(t, c.b, "in", chaosRounds, append(keys(chaosKeys), "-none")...)
	return c
}

func (c *chaos) n(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

// member runs stages one after the other until everything is settled.
func (c *chaos) member(t *testing.T) {
	p := producer(t, c.b)
	for calm := false; !calm; {
		calm = time.Now().After(c.until)
		in, err := c.b.Consumer(t.Context(), stagebus.ConsumerOptions{
			Topics: []string{"in"}, Prefetch: 1 + c.n(200), Drain: time.Duration(c.n(5000)) * time.Millisecond,
		})
		if err != nil {
			t.Error(err)
			return
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(c.n(5000))*time.Millisecond)
		if calm {
			stop()
			ctx, stop = context.WithTimeout(t.Context(), time.Hour)
		}
		err = pipeline.Run(ctx, pipeline.Stage{
			Consumer: in, Producer: p, Handle: c.handle, Workers: 1 + c.n(5), Batch: 1 + c.n(100), Drain: time.Duration(1+c.n(2000)) * time.Millisecond,
		})
		stop()
		var panicked *pipeline.PanicError
		if err != nil && (calm || !errors.Is(err, pipeline.ErrDrain) && !errors.As(err, &panicked)) {
			t.Error(err)
		}
		if err := in.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func (c *chaos) handle(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	c.mu.Lock()
	c.begun[d.ID]++
	c.mu.Unlock()
	// The outputs have IDs of the input and a number of their own, under the input's key and under another.
	outs := []stagebus.Message{
		{Topic: "out", Key: d.Key, ID: d.ID, Body: d.Body},
		{Topic: "out", Key: []byte("other"), ID: "-other-" + d.ID, Body: d.Body},
	}
	if time.Now().After(c.until) {
		return outs, stagebus.Done
	}
	if c.n(3) == 0 {
		select {
		case <-time.After(time.Duration(c.n(1000)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
	switch what := c.n(40); {
	case what == 2:
		c.faults.Fail(1+c.n(3), stagebus.ErrUnavailable)
	case what == 3:
		c.mu.Lock()
		c.lost++
		c.mu.Unlock()
		c.faults.Lose(1)
	case what == 4 && c.n(8) == 0:
		panic("chaos")
	case c.ordered:
	case what == 0:
		return nil, stagebus.Release
	case what == 1:
		return outs, stagebus.Release
	case what == 5:
		return nil, stagebus.Retry(time.Duration(c.n(2000)) * time.Millisecond)
	case what == 6:
		return outs, stagebus.Retry(0)
	case what == 7 && c.n(4) == 0:
		return nil, stagebus.Reject("chaos")
	}
	return outs, stagebus.Done
}

func (c *chaos) check(t *testing.T, seed uint64) {
	t.Helper()
	if n := depth(t, c.b, "in"); n != 0 {
		t.Errorf("seed %d: %d inputs are not settled", seed, n)
	}
	sent, dead, order := map[string]int{}, map[string]int{}, newBook()
	for _, m := range memorytest.Drain(t, c.b, "out") {
		if sent[m.ID]++; string(m.Key) != "other" {
			order.add(m.ID)
		}
	}
	if c.ordered {
		order.inOrder(t)
	}
	for _, m := range memorytest.Drain(t, c.b, stagebus.DeadLetterTopic("in", "")) {
		dead[m.ID]++
	}
	for _, key := range append(keys(chaosKeys), "-none") {
		for i := range chaosRounds {
			id := key + "/" + fmt.Sprint(i)
			for _, out := range []string{id, "-other-" + id} {
				if sent[out] == 0 && dead[id] == 0 {
					t.Errorf("seed %d: %s is lost: begun %d times", seed, out, c.begun[id])
				}
				if sent[out] > c.begun[id]+c.lost {
					t.Errorf("seed %d: %s was sent %d times: begun %d times, and %d sends were uncertain", seed, out, sent[out], c.begun[id], c.lost)
				}
			}
			delete(sent, id)
			delete(sent, "-other-"+id)
		}
	}
	for id := range sent {
		t.Errorf("seed %d: %s was never an input", seed, id)
	}
}
