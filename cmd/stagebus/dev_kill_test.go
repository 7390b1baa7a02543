package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// books are what happened to messages, by body.
type books struct {
	mu      sync.Mutex
	acked   map[string]bool // Send said nil
	open    map[string]bool // Send said ErrUncertain
	settled map[string]bool // Flush said nil after Done
}

func (b *books) note(m map[string]bool, bodies ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range bodies {
		m[s] = true
	}
}

// A broker that is killed under load, again and again, has every message that was acknowledged, once, and every group where it was; what
// was uncertain is there once or not at all.
func TestDevKilled(t *testing.T) {
	kills := 4
	if os.Getenv("STAGEBUS_LONG") != "" {
		kills = 100
	}
	dir := filepath.Join(t.TempDir(), "dev")
	b := &books{acked: map[string]bool{}, open: map[string]bool{}, settled: map[string]bool{}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range kills {
		d := startDev(t, "--dir", dir, "--topic", "t:4", "--quiet")
		if want := round > 0; d.ready.Recovered != want {
			t.Errorf("round %d: recovered is %v", round, d.ready.Recovered)
		}
		devLoad(t, d, b, round, int64(500+rnd.IntN(1500)))
	}
	d := startDev(t, "--dir", dir, "--quiet")
	found := devRead(t, d)
	var lost, doubled, arrived int
	for body := range b.acked {
		if found[body] == 0 {
			lost++
		}
	}
	for body, n := range found {
		if n > 1 {
			doubled++
		}
		if b.open[body] {
			arrived++
		} else if !b.acked[body] {
			t.Errorf("%q was never sent", body)
		}
	}
	t.Logf("%d kills: %d acknowledged, %d lost, %d doubled; %d uncertain, %d of them arrived; %d settled",
		kills, len(b.acked), lost, doubled, len(b.open), arrived, len(b.settled))
	if lost > 0 || doubled > 0 || len(b.acked) < kills*500 || len(b.settled) == 0 {
		t.Error("see the books above")
	}
}

// devRead returns how often each body is in topic t.
func devRead(t *testing.T, d *devProcess) map[string]int {
	t.Helper()
	bus := d.connect()
	info, err := bus.Admin().Describe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, p := range info.Partitions {
		n += p.Next - p.First
	}
	c, err := bus.Consumer(t.Context(), stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Assigned})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	ds := make([]stagebus.Delivery, 256)
	for n > 0 { // every offset holds a message: nothing is compacted or transactional
		got, err := c.Receive(t.Context(), ds)
		if err != nil {
			t.Fatal(err)
		}
		for _, delivery := range ds[:got] {
			found[string(delivery.Body)]++
			if err := c.Settle(t.Context(), stagebus.Done, delivery.Token); err != nil {
				t.Fatal(err)
			}
		}
		n -= int64(got)
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return found
}

// outcomes are the errors of each message of a Send.
func outcomes(err error, n int) []error {
	var batch *stagebus.BatchError
	if errors.As(err, &batch) {
		return batch.Errs
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// devLoad sends from four goroutines and consumes in a group until that many messages were acknowledged, and then kills the broker
// under them.
func devLoad(t *testing.T, d *devProcess, b *books, round int, enough int64) {
	t.Helper()
	bus := d.connect()
	var acked atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	ctx, cancel := context.WithCancel(t.Context())
	var load, senders sync.WaitGroup
	for g := range 4 {
		senders.Go(func() {
			p, err := bus.Producer(ctx, stagebus.ProducerOptions{Timeout: 2 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			for i := 0; ; i++ {
				ms := make([]stagebus.Message, 1+i%8)
				bodies := make([]string, len(ms))
				for j := range ms {
					bodies[j] = fmt.Sprintf("%d-%d-%d-%d", round, g, i, j)
					ms[j] = stagebus.Message{Topic: "t", Key: []byte(bodies[j]), Body: []byte(bodies[j])}
				}
				err := stagebus.Send(ctx, p, ms...)
				for j, err := range outcomes(err, len(ms)) {
					switch {
					case err == nil:
						b.note(b.acked, bodies[j])
						acked.Add(1)
					case errors.Is(err, stagebus.ErrUncertain):
						b.note(b.open, bodies[j])
					}
				}
				if acked.Load() >= enough {
					once.Do(func() { close(full) })
				}
				if err != nil {
					return // the kill, or see the books
				}
			}
		})
	}
	load.Go(func() {
		c, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "g"})
		if err != nil {
			t.Error(err)
			return
		}
		ds := make([]stagebus.Delivery, 64)
		for {
			got, err := c.Receive(ctx, ds)
			if err != nil {
				return // the end
			}
			var tokens []stagebus.Token
			var bodies []string
			for _, delivery := range ds[:got] {
				body := string(delivery.Body)
				b.mu.Lock()
				if b.settled[body] {
					t.Errorf("%q was settled and comes again", body)
				}
				b.mu.Unlock()
				tokens = append(tokens, delivery.Token)
				bodies = append(bodies, body)
			}
			if c.Settle(ctx, stagebus.Done, tokens...) == nil && c.Flush(ctx) == nil {
				b.note(b.settled, bodies...)
			}
		}
	})
	load.Go(func() {
		senders.Wait()
		once.Do(func() {
			t.Error("all senders failed before the kill")
			close(full)
		})
	})
	<-full
	d.kill()
	cancel()
	load.Wait()
	end, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second/2)
	defer cancel()
	_ = bus.Close(end) // its broker is gone
}
