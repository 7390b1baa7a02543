package pipeline_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
	"github.com/stagebus/stagebus/pipeline"
)

// Everything that goes in comes out, once, each key in its order, whatever the number of workers.
func TestForward(t *testing.T) {
	for _, workers := range []int{1, 2, 16} {
		for _, batch := range []int{1, 7, 0} {
			b := newBroker(t, memory.Options{Partitions: 4})
			ks := append(keys(20), "-nokey")
			send(t, b, "in", 100, ks...)
			s := start(t, pipeline.Stage{
				Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Handle: forward, Workers: workers, Batch: batch,
			})
			out := newBook().read(t, b, "out")
			out.await(t, 100*len(ks))
			s.stop()
			check(t, s.end())
			if n := depth(t, b, "in"); n != 0 {
				t.Errorf("workers %d, batch %d: %d inputs are not settled", workers, batch, n)
			}
			if n := out.duplicates(); n != 0 {
				t.Errorf("workers %d, batch %d: %d duplicates", workers, batch, n)
			}
			out.inOrder(t)
		}
	}
}

// One of each key is handled at a time; those without a key, and those of other keys, at the same time.
func TestKeysOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 20, append(keys(5), "-none")...)
		var mu sync.Mutex
		running, most := map[string]int{}, map[string]int{}
		s := start(t, pipeline.Stage{
			Consumer: consumer(t, b, stagebus.ConsumerOptions{Prefetch: 1000}), Workers: 8,
			Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				for _, key := range []string{string(d.Key), "all"} {
					mu.Lock()
					running[key]++
					most[key] = max(most[key], running[key])
					mu.Unlock()
					defer func() {
						mu.Lock()
						defer mu.Unlock()
						running[key]--
					}()
				}
				<-time.After(time.Second)
				return nil, stagebus.Done
			},
		})
		<-time.After(time.Hour)
		s.stop()
		check(t, s.end())
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d are not settled", n)
		}
		for _, key := range keys(5) {
			if most[key] != 1 {
				t.Errorf("%s: %d handlers at the same time", key, most[key])
			}
		}
		if most[""] < 2 || most["all"] != 8 {
			t.Errorf("at most %d handlers at the same time, %d of them without a key", most["all"], most[""])
		}
	})
}

// A key whose handler doesn't return stops nobody else.
func TestSlowKey(t *testing.T) {
	b := newBroker(t, memory.Options{})
	send(t, b, "in", 20, "slow", "a", "b", "c")
	goOn := make(chan struct{})
	s := start(t, pipeline.Stage{
		Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Workers: 2,
		Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			if string(d.Key) == "slow" {
				<-goOn
			}
			return forward(ctx, d)
		},
	})
	out := newBook().read(t, b, "out")
	out.await(t, 60)
	close(goOn)
	out.await(t, 80)
	out.inOrder(t)
	s.stop()
	check(t, s.end())
}

// What is received and not settled is bounded, whatever the consumer would give.
func TestOpenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 200, keys(10)...)
		c := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{Prefetch: 10000})}
		goOn := make(chan struct{})
		s := start(t, pipeline.Stage{
			Consumer: c, Batch: 10,
			Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				<-goOn
				return nil, stagebus.Done
			},
		})
		synctest.Wait()
		if n := c.received.Load(); n != 160 {
			t.Errorf("%d are open, want 16 batches of 10", n)
		}
		close(goOn)
		synctest.Wait()
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d are not settled", n)
		}
		s.stop()
		check(t, s.end())
	})
}

// Settlements that are there at the same time are told together.
func TestSettlementsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		c := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{Prefetch: 1000}), hold: make(chan struct{})}
		s := start(t, pipeline.Stage{
			Consumer: c,
			Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				return nil, stagebus.Done
			},
		})
		send(t, b, "in", 1, "first")
		synctest.Wait() // its settlement is held up
		send(t, b, "in", 50, keys(4)...)
		synctest.Wait()
		close(c.hold)
		synctest.Wait()
		if n := c.settles.Load(); n != 2 {
			t.Errorf("%d calls of Settle, want 2", n)
		}
		s.stop()
		check(t, s.end())
	})
}

// A delivery that a layer couldn't read is rejected with its reason; no handler sees it.
func TestUnreadable(t *testing.T) {
	bad := stagebus.Transform("bad", stagebus.Sign, nil, func(d *stagebus.Delivery) error {
		if strings.Contains(d.ID, "bad") && !strings.Contains(d.Topic, "dlq") {
			return errors.New("no signature")
		}
		return nil
	})
	b := newBroker(t, memory.Options{}, bad)
	send(t, b, "in", 10, "bad", "good", "-bad")
	s := start(t, pipeline.Stage{
		Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b),
		Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			if d.Err != nil || string(d.Key) == "bad" {
				t.Error("handled")
			}
			return forward(ctx, d)
		},
	})
	newBook().read(t, b, "out").await(t, 10)
	s.stop()
	check(t, s.end())
	if n := depth(t, b, "in"); n != 0 {
		t.Errorf("%d are not settled", n)
	}
	dead := memorytest.Drain(t, b, stagebus.DeadLetterTopic("in", ""))
	if len(dead) != 20 {
		t.Fatalf("%d dead letters, want 20", len(dead))
	}
	if reason, _ := dead[0].Headers.Get(stagebus.HeaderDeadReason); reason != "no signature" {
		t.Errorf("reason %q", reason)
	}
}

// Each verdict settles after the outputs.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 1, "retry", "reject", "release", "done")
		var mu sync.Mutex
		handled := map[string]int{}
		s := start(t, pipeline.Stage{
			Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b),
			Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				mu.Lock()
				defer mu.Unlock()
				key := string(d.Key)
				outs, done := forward(ctx, d)
				handled[key]++
				switch {
				case key == "reject":
					return outs, stagebus.Reject("on purpose")
				case key == "retry" && d.Attempt < 3:
					return outs, stagebus.Retry(time.Second)
				case key == "release" && handled[key] < 4:
					return outs, stagebus.Verdict{}
				}
				return outs, done
			},
		})
		out := newBook().read(t, b, "out")
		<-time.After(time.Minute)
		s.stop()
		check(t, s.end())
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d are not settled", n)
		}
		for id, want := range map[string]int{"retry/0": 3, "reject/0": 1, "release/0": 4, "done/0": 1} {
			if out.seen[id] != want {
				t.Errorf("%s: %d outputs, want %d", id, out.seen[id], want)
			}
		}
		if dead := memorytest.Drain(t, b, stagebus.DeadLetterTopic("in", "")); len(dead) != 1 || dead[0].ID != "reject/0" {
			t.Errorf("dead letters: %v", dead)
		}
	})
}

// What waits in the key behind a message that is released goes back with it, and all come again in their order.
func TestReleaseKeepsOrder(t *testing.T) {
	b := newBroker(t, memory.Options{})
	send(t, b, "in", 100, keys(3)...)
	var n atomic.Int32
	s := start(t, pipeline.Stage{
		Consumer: consumer(t, b, stagebus.ConsumerOptions{Prefetch: 1000}), Producer: producer(t, b), Workers: 4, Batch: 1000,
		Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			if n.Add(1)%10 == 0 {
				return nil, stagebus.Release
			}
			return forward(ctx, d)
		},
	})
	out := newBook().read(t, b, "out")
	out.await(t, 300)
	s.stop()
	check(t, s.end())
	if out.duplicates() > 0 {
		t.Errorf("%d duplicates", out.duplicates())
	}
	out.inOrder(t)
}

// A consumer that is closed ends the stage without an error: what runs is settled, the rest given back.
func TestConsumerClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 50, keys(4)...)
		c := consumer(t, b, stagebus.ConsumerOptions{})
		goOn := make(chan struct{})
		s := start(t, pipeline.Stage{
			Consumer: c, Producer: producer(t, b), Workers: 2,
			Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				<-goOn
				return forward(ctx, d)
			},
		})
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- c.Close(within(t)) }()
		synctest.Wait()
		close(goOn)
		check(t, s.end())
		check(t, <-closed)
		if n := depth(t, b, "in"); n != 198 {
			t.Errorf("%d are left, want all but the two that were being handled", n)
		}
	})
}

// Run tells the broker what was settled before it returns, unless its consumer was closed, which does that.
func TestFlush(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct{ fail, want error }{{nil, nil}, {broken, broken}, {stagebus.ErrClosed, nil}} {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 1, "a")
		in := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), failFlush: c.fail}
		s := start(t, pipeline.Stage{Consumer: in, Producer: producer(t, b), Handle: forward})
		newBook().read(t, b, "out").await(t, 1)
		s.stop()
		if err := s.end(); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
		if n := in.flushes.Load(); n != 1 {
			t.Errorf("%d calls of Flush", n)
		}
	}
}

func TestReceiveFails(t *testing.T) {
	b := newBroker(t, memory.Options{})
	broken := errors.New("broken")
	for want, fail := range map[error]error{broken: broken, nil: io.EOF} {
		err := pipeline.Run(t.Context(), pipeline.Stage{
			Name: "s", Consumer: &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), fail: fail}, Handle: forward,
		})
		if !errors.Is(err, want) || want != nil && err.Error() != `stage "s": receive: broken` {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestInvalidStages(t *testing.T) {
	c := consumer(t, newBroker(t, memory.Options{}), stagebus.ConsumerOptions{})
	for want, s := range map[string]pipeline.Stage{
		"Stage.Consumer": {Handle: forward},
		"Stage.Handle":   {Consumer: c},
		"Stage.Workers":  {Consumer: c, Handle: forward, Workers: -1},
		"Stage.Batch":    {Consumer: c, Handle: forward, Batch: -1},
		"Stage.Drain":    {Consumer: c, Handle: forward, Drain: -1},
	} {
		err := pipeline.Run(t.Context(), s)
		if !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one that names %s", err, want)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := pipeline.Run(ctx, pipeline.Stage{Consumer: c, Handle: forward}); err != nil {
		t.Errorf("ended before it began: %v", err)
	}
}
