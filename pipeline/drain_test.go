package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

type valueKey struct{}

// The end of Run's context stops neither the handlers that run nor what they return; nothing else is begun.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 10, append(keys(5), "-none")...)
		var running, ended atomic.Int32
		ctx, stop := context.WithCancel(context.WithValue(context.Background(), valueKey{}, "value"))
		result := make(chan error)
		go func() {
			result <- pipeline.Run(ctx, pipeline.Stage{
				Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Workers: 3,
				Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
					running.Add(1)
					select {
					case <-time.After(9 * time.Second):
						ended.Add(1)
					case <-ctx.Done():
						t.Errorf("the handler's context ended: %v", context.Cause(ctx))
					}
					if ctx.Value(valueKey{}) != "value" {
						t.Error("the values of Run's context are not there")
					}
					return forward(ctx, d)
				},
			})
		}()
		synctest.Wait()
		stop()
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("ended while handlers run: %v", err)
		default:
		}
		check(t, <-result)
		if running.Load() != 3 || ended.Load() != 3 {
			t.Errorf("%d handlers began, %d ended, want 3", running.Load(), ended.Load())
		}
		if n := len(memorytest.Drain(t, b, "out")); n != 3 {
			t.Errorf("%d outputs, want 3", n)
		}
		if n := depth(t, b, "in"); n != 57 {
			t.Errorf("%d inputs are left, want 57", n)
		}
	})
}

// When the drain time is over, handlers' contexts end, and what they return then is dropped: their messages come again.
func TestDrainTimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 10, keys(5)...)
		c := consumer(t, b, stagebus.ConsumerOptions{})
		var causes sync.Map
		s := start(t, pipeline.Stage{
			Name: "s", Consumer: c, Producer: producer(t, b), Workers: 3, Drain: time.Minute + time.Second,
			Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				<-ctx.Done()
				causes.Store(context.Cause(ctx), true)
				if string(d.Key) == "key0" {
					return nil, stagebus.Done // doesn't count either: what a handler says that was interrupted isn't believed
				}
				return forward(ctx, d)
			},
		})
		synctest.Wait()
		s.stop()
		began := time.Now()
		err := s.end()
		if !errors.Is(err, pipeline.ErrDrain) || err.Error() != `stage "s": the drain time is over (1m1s): 3 messages were cut off and given back, they come again` {
			t.Error(err)
		}
		if d := time.Since(began); d != time.Minute+time.Second {
			t.Errorf("ended after %v", d)
		}
		causes.Range(func(cause, _ any) bool {
			if !errors.Is(cause.(error), pipeline.ErrDrain) {
				t.Errorf("cause %v", cause)
			}
			return true
		})
		if outs := memorytest.Drain(t, b, "out"); len(outs) > 0 {
			t.Errorf("%d outputs were sent too late", len(outs))
		}
		// All of them come again, in order, to the same consumer.
		again := start(t, pipeline.Stage{Consumer: c, Producer: producer(t, b), Handle: forward, Workers: 3})
		out := newBook().read(t, b, "out")
		out.await(t, 50)
		out.inOrder(t)
		again.stop()
		check(t, again.end())
	})
}

// Sends that can't be finished within the drain time are given up, and their inputs given back.
func TestDrainOfSends(t *testing.T) {
	for _, c := range []struct {
		name string
		p    *scripted
	}{
		{"outcomes that don't come", &scripted{hold: true}},
		{"failures", &scripted{outcome: func(stagebus.Message) error { return stagebus.ErrUnavailable }}},
		{"refusals", &scripted{refuse: func([]stagebus.Message) error { return stagebus.ErrUnavailable }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, memory.Options{})
				send(t, b, "in", 10, append(keys(5), "-none")...)
				if c.p.hold {
					c.p.outcome = func(stagebus.Message) error { return stagebus.ErrUncertain }
				}
				in := consumer(t, b, stagebus.ConsumerOptions{})
				s := start(t, pipeline.Stage{Consumer: in, Producer: c.p, Handle: numbered, Workers: 3})
				<-time.After(time.Second)
				s.stop()
				began := time.Now()
				if err := s.end(); !errors.Is(err, pipeline.ErrDrain) {
					t.Error(err)
				}
				if d := time.Since(began); d != 10*time.Second {
					t.Errorf("ended after %v", d)
				}
				if n := depth(t, b, "in"); n != 60 {
					t.Errorf("%d inputs are left, want 60", n)
				}
				// In their order: what was given back first comes first.
				out := newBook()
				dst := make([]stagebus.Delivery, 60)
				n, err := in.Receive(t.Context(), dst)
				check(t, err)
				for i := range dst[:n] {
					out.add(dst[i].ID)
					check(t, in.Settle(t.Context(), stagebus.Done, dst[i].Token))
				}
				if n != 60 {
					t.Errorf("%d come again", n)
				}
				out.inOrder(t)
			})
		})
	}
}

// When another member joins, what runs is finished and what was not started goes to whoever gets the partition: all in order, and nothing
// twice but what was settled behind something that wasn't.
func TestLanesDrain(t *testing.T) {
	for _, workers := range []int{1, 5} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, memory.Options{Partitions: 6})
			send(t, b, "in", 20, keys(30)...)
			out := newBook().read(t, b, "out")
			p := producer(t, b)
			var mu sync.Mutex
			var handled []stagebus.Position // in order
			handle := func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				mu.Lock()
				handled = append(handled, d.Position)
				mu.Unlock()
				<-time.After(100 * time.Millisecond)
				return forward(ctx, d)
			}
			var stages []*stage
			var consumers []stagebus.Consumer
			for i := range 4 { // one after the other joins, and the first leave
				consumers = append(consumers, consumer(t, b, stagebus.ConsumerOptions{Prefetch: 1000}))
				stages = append(stages, start(t, pipeline.Stage{
					Name: fmt.Sprint(i), Consumer: consumers[i], Producer: p, Handle: handle, Workers: workers,
				}))
				<-time.After(time.Second)
				if n := out.distinct(); n == 600 {
					t.Fatal("too fast: this tests nothing")
				}
			}
			for i, s := range stages[:3] {
				s.stop()
				check(t, s.end())
				check(t, consumers[i].Close(t.Context()))
			}
			out.await(t, 600)
			stages[3].stop()
			check(t, stages[3].end())
			if n := depth(t, b, "in"); n != 0 {
				t.Errorf("%d inputs are not settled", n)
			}
			out.inOrder(t)
			first, twice := map[stagebus.Position]int{}, 0
			for i, at := range handled {
				before, again := first[at]
				if !again {
					first[at] = i
					continue
				}
				twice++
				if !slices.ContainsFunc(handled[before:], func(x stagebus.Position) bool { return x.Partition == at.Partition && x.Offset < at.Offset }) {
					t.Errorf("%v was handled twice, though all before it had been handled", at)
				}
			}
			if workers == 1 && twice > 0 {
				t.Errorf("%d were handled twice by workers that handle one after the other", twice)
			}
		})
	}
}

// What was received just before its lane began to drain isn't started either, even when all that came before it from the lane is settled.
func TestReceivedBeforeTheDrain(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, memory.Options{})
			send(t, b, "in", 10, "a")
			c := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{})}
			received, goOn := 0, make(chan struct{})
			c.afterReceive = func() {
				if received++; received == 2 {
					<-goOn
				}
			}
			var handled atomic.Int32
			s := start(t, pipeline.Stage{
				Consumer: c, Batch: 5, Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
					handled.Add(1)
					return nil, stagebus.Done
				},
			})
			synctest.Wait() // five are settled, five on their way from Receive
			closed := make(chan error, 1)
			go func() { closed <- c.Close(t.Context()) }()
			synctest.Wait()
			close(goOn)
			check(t, s.end())
			check(t, <-closed)
			if n := handled.Load(); n != 5 {
				t.Fatalf("%d were handled, want 5", n)
			}
		})
	}
}

// A lane that ends while its handlers run ends their contexts; what they return is dropped, and the late settlement counted.
func TestLaneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{Partitions: 2})
		send(t, b, "in", 1, keys(10)...)
		var events hook
		var causes sync.Map // by partition
		first := start(t, pipeline.Stage{
			Consumer: consumer(t, b, stagebus.ConsumerOptions{Drain: time.Second}), Producer: producer(t, b), Hook: events.add, Workers: 10,
			Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				select {
				case <-ctx.Done():
					causes.Store(d.Position.Partition, context.Cause(ctx))
				case <-time.After(5 * time.Second):
					causes.Store(d.Position.Partition, error(nil))
				}
				return forward(ctx, d)
			},
		})
		synctest.Wait()
		second := consumer(t, b, stagebus.ConsumerOptions{Prefetch: 100}) // takes a partition; the lane is sealed a second later
		<-time.After(10 * time.Second)
		first.stop()
		check(t, first.end())
		dst := make([]stagebus.Delivery, 100)
		n, err := second.Receive(t.Context(), dst)
		check(t, err)
		if n == 0 || n == 10 {
			t.Fatalf("%d messages moved: this tests nothing", n)
		}
		moved := dst[0].Position.Partition
		if cause, _ := causes.Load(moved); !errors.Is(cause.(error), stagebus.ErrStale) {
			t.Errorf("cause %v", cause)
		}
		if cause, _ := causes.Load(1 - moved); cause != nil {
			t.Errorf("cause %v in the lane that stayed", cause)
		}
		stale := int64(0)
		for _, e := range events.of(stagebus.EventStale) {
			stale += e.N
		}
		if stale != int64(n) {
			t.Errorf("%d late settlements were told, want %d", stale, n)
		}
		if outs := memorytest.Drain(t, b, "out"); len(outs) != 10-n {
			t.Errorf("%d outputs were sent, want %d", len(outs), 10-n)
		}
		for _, d := range dst[:n] {
			check(t, second.Settle(t.Context(), stagebus.Done, d.Token))
		}
	})
}
