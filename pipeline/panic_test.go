package pipeline_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
	"github.com/stagebus/stagebus/pipeline"
)

// A panic ends the stage, in order: the others are settled, the message that did it and those behind it come again.
func TestPanic(t *testing.T) {
	cause := errors.New("boom")
	for name, blow := range map[string]func(){
		"panic":  func() { panic(cause) },
		"index":  func() { _ = keys(1)[len(keys(2))] },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, memory.Options{})
				send(t, b, "in", 10, "a", "b", "c")
				c := consumer(t, b, stagebus.ConsumerOptions{})
				var handled sync.Map
				begun := make(chan struct{})
				s := start(t, pipeline.Stage{
					Name: "s", Consumer: c, Producer: producer(t, b), Workers: 3,
					Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
						switch d.ID {
						case "b/5":
							<-begun
							blow()
						case "c/5":
							close(begun)
							<-time.After(time.Second) // runs on
						}
						handled.Store(d.ID, true)
						return forward(ctx, d)
					},
				})
				err := s.end()
				var p *pipeline.PanicError
				if !errors.As(err, &p) || p.Topic != "in" || p.ID != "b/5" || p.Position.Offset != 16 || len(p.Stack) == 0 {
					t.Fatalf("%v", err)
				}
				want := `stage "s": the handler panicked on a message of topic "in", from in partition 0 offset 16, ID "b/5": `
				if !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
				switch name {
				case "panic":
					if !errors.Is(err, cause) || !strings.Contains(err.Error(), "TestPanic") {
						t.Errorf("%v", err)
					}
				case "index":
					if !strings.Contains(err.Error(), "out of range") || !strings.Contains(err.Error(), "panic_test.go") {
						t.Errorf("%v", err)
					}
				}
				// What was handled was sent, and is settled; the rest comes again.
				outs := memorytest.Drain(t, b, "out")
				sent := map[string]bool{}
				for _, m := range outs {
					sent[m.ID] = true
				}
				handled.Range(func(id, _ any) bool {
					if !sent[id.(string)] {
						t.Errorf("%s was handled, and its output not sent", id)
					}
					return true
				})
				if !sent["c/5"] || sent["b/5"] {
					t.Errorf("sent %v", sent)
				}
				again := start(t, pipeline.Stage{Consumer: c, Producer: producer(t, b), Handle: forward})
				out := newBook().read(t, b, "out")
				out.await(t, 30)
				out.inOrder(t)
				again.stop()
				check(t, again.end())
				if out.duplicates() > 0 {
					t.Errorf("%d duplicates", out.duplicates())
				}
			})
		})
	}
}

// Rejects and retries that fail for the moment are tried again; those that can't be end the stage.
func TestMoveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			err   error
			times int
			want  error
		}{{stagebus.ErrUnavailable, 100, nil}, {stagebus.ErrAuth, 3, nil}, {stagebus.ErrAuth, 1000, stagebus.ErrAuth}, {stagebus.ErrUnsupported, 1000, stagebus.ErrUnsupported}, {stagebus.ErrStale, 1, nil}} {
			b := newBroker(t, memory.Options{})
			send(t, b, "in", 1, "a")
			var events hook
			n := 0
			in := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), failSettle: func(v stagebus.Verdict) error {
				if n++; v.Kind == stagebus.KindReject && n <= c.times {
					return c.err
				}
				return nil
			}}
			s := start(t, pipeline.Stage{Consumer: in, Hook: events.add, Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				return nil, stagebus.Reject("no")
			}})
			<-time.After(10 * time.Minute)
			s.stop()
			if err := s.end(); !errors.Is(err, c.want) {
				t.Errorf("%v %d times: %v", c.err, c.times, err)
			}
			dead := len(memorytest.Drain(t, b, stagebus.DeadLetterTopic("in", "")))
			stale := errors.Is(c.err, stagebus.ErrStale)
			if want := c.want == nil && !stale; want != (dead == 1) || want != (depth(t, b, "in") == 0) {
				t.Errorf("%v %d times: %d dead letters, %d inputs left", c.err, c.times, dead, depth(t, b, "in"))
			}
			if stale && len(events.of(stagebus.EventStale)) != 1 {
				t.Error("a late settlement was not told")
			}
		}
	})
}

// A reject that can't be done within the drain time is given up.
func TestDrainOfMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 1, "a")
		in := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), failSettle: func(v stagebus.Verdict) error {
			if v.Kind == stagebus.KindReject {
				return stagebus.ErrUnavailable
			}
			return nil
		}}
		s := start(t, pipeline.Stage{Consumer: in, Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			return nil, stagebus.Reject("no")
		}})
		<-time.After(time.Minute)
		s.stop()
		if err := s.end(); !errors.Is(err, pipeline.ErrDrain) {
			t.Error(err)
		}
		if n := depth(t, b, "in"); n != 1 {
			t.Error("the input is gone")
		}
		ds := make([]stagebus.Delivery, 2)
		if n, err := in.Receive(t.Context(), ds); n != 1 || err != nil {
			t.Errorf("%d came again, %v", n, err)
		}
		check(t, in.Settle(t.Context(), stagebus.Done, ds[0].Token))
	})
}

// Settling with Done can't fail but for a token that is stale: then nothing that goes on can be settled, and the stage ends.
func TestDoneFails(t *testing.T) {
	b := newBroker(t, memory.Options{})
	send(t, b, "in", 1, "a")
	broken := errors.New("broken")
	in := &spy{Consumer: consumer(t, b, stagebus.ConsumerOptions{Drain: time.Millisecond}), failSettle: func(stagebus.Verdict) error { return broken }}
	s := start(t, pipeline.Stage{Consumer: in, Producer: producer(t, b), Handle: forward})
	if err := s.end(); !errors.Is(err, broken) {
		t.Error(err)
	}
}
