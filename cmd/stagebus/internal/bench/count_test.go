package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
)

// rewrite is a layer that sends other messages than it was given, and confirms those that it was given.
func rewrite(f func(ms []stagebus.Message) []stagebus.Message) stagebus.Middleware {
	return stagebus.Middleware{Name: "rewrite", Layer: stagebus.Sign, Producer: func(p stagebus.Producer) stagebus.Producer {
		return &rewriting{p, f}
	}}
}

type rewriting struct {
	inner stagebus.Producer
	f     func([]stagebus.Message) []stagebus.Message
}

func (p *rewriting) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	sent := p.f(slices.Clone(ms))
	all := func([]stagebus.Outcome) { done(make([]stagebus.Outcome, len(ms))) }
	if len(sent) == 0 {
		all(nil)
		return nil
	}
	return p.inner.Submit(ctx, sent, all)
}

func (p *rewriting) Close(ctx context.Context) error { return p.inner.Close(ctx) }

// What a broker loses, doubles and reorders is counted to the message, and the run comes to its end.
func TestCounts(t *testing.T) {
	second := func(f func(ms []stagebus.Message) []stagebus.Message) stagebus.Middleware {
		var calls atomic.Int64
		return rewrite(func(ms []stagebus.Message) []stagebus.Message {
			if calls.Add(1) != 2 {
				return ms
			}
			return f(ms)
		})
	}
	faults := &memorytest.Faults{}
	for _, c := range []struct {
		name  string
		layer stagebus.Middleware
		fault func()
		want  Counts
	}{
		{"lost", second(func(ms []stagebus.Message) []stagebus.Message { return slices.Delete(ms, 3, 10) }), nil,
			Counts{Confirmed: 2000, Received: 1993, Lost: 7}},
		{"all of a batch lost", second(func([]stagebus.Message) []stagebus.Message { return nil }), nil,
			Counts{Confirmed: 2000, Received: 1936, Lost: 64}},
		{"doubled", second(func(ms []stagebus.Message) []stagebus.Message { return append(ms, ms[5:8]...) }), nil,
			Counts{Confirmed: 2000, Received: 2000, Duplicate: 3}},
		{"swapped", second(func(ms []stagebus.Message) []stagebus.Message {
			ms[0], ms[10] = ms[10], ms[0] // of five keys, these two have the same, and ms[5] between them
			return ms
		}), nil, Counts{Confirmed: 2000, Received: 2000, OutOfOrder: 2}},
		{"of another measurement", second(func(ms []stagebus.Message) []stagebus.Message {
			return append(ms, stagebus.Message{Topic: ms[0].Topic, Body: []byte("hello")}, stagebus.Message{Topic: ms[0].Topic, Body: newBody(500)})
		}), nil, Counts{Confirmed: 2000, Received: 2000, Foreign: 2}},
		{"refused", faults.Middleware(), func() { faults.Fail(2, errBroken) },
			Counts{Confirmed: 2000 - 128, Failed: 128, Received: 2000 - 128, Error: "broken"}},
		{"uncertain, and there", faults.Middleware(), func() { faults.Lose(2) },
			Counts{Confirmed: 2000 - 128, Uncertain: 128, Received: 2000, Error: stagebus.ErrUncertain.Error()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // what is lost is waited for
				s := small(Both)
				s.Parts = 1
				if c.fault != nil {
					c.fault()
				}
				r := measure(t, s, target(t, c.layer))
				if got := r.Rows[0].Rounds[0].Counts; got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				if r.Lost() != c.want.Lost {
					t.Errorf("the report has lost %d", r.Lost())
				}
				if n, first := r.Failed(); n != c.want.Failed+c.want.Uncertain || first != c.want.Error {
					t.Errorf("the report says %d, %q", n, first)
				}
			})
		})
	}
}

// As fast as possible, messages that are lost must not fill the room of those that follow for ever.
func TestLossEndsAClosedLoop(t *testing.T) {
	for _, m := range []Mode{Both, Request, Consume} {
		synctest.Test(t, func(t *testing.T) {
			s := small(m)
			s.InFlight, s.Count, s.Duration = 100, 0, 10*patience
			if m == Consume {
				s.Count = 1000
			}
			x := target(t, rewrite(func(ms []stagebus.Message) []stagebus.Message { return ms[1:] }))
			p := newPhase(s, x, 100, 0, "t")
			r, err := p.run(t.Context(), func(int64, time.Duration) {})
			if err != nil || r.Counts.Lost == 0 || r.Counts.Lost != r.Counts.Confirmed-r.Counts.Received {
				t.Errorf("%s: %v, %+v", m, err, r.Counts)
			}
		})
	}
}

// A count alone ends a closed loop too, when what was lost fills its room.
func TestLossEndsACount(t *testing.T) {
	for _, m := range []Mode{Both, Request} {
		synctest.Test(t, func(t *testing.T) {
			s := small(m)
			s.InFlight, s.Count, s.Duration = 100, 100_000, 0
			x := target(t, rewrite(func(ms []stagebus.Message) []stagebus.Message { return ms[1:] }))
			p := newPhase(s, x, 100, 0, "t")
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			r, err := p.run(ctx, func(int64, time.Duration) {})
			if err != nil || ctx.Err() != nil || r.Counts.Lost == 0 {
				t.Errorf("%s: %v, %v, %+v", m, err, ctx.Err(), r.Counts)
			}
		})
	}
}

// slow is a consumer that takes a moment for each batch.
type slow struct{ stagebus.Consumer }

func (c slow) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	<-time.After(70 * time.Millisecond)
	return c.Consumer.Receive(ctx, dst)
}

// A count is exact behind a warm-up too, at whose end a generator waits for room.
func TestCountAfterWarmup(t *testing.T) {
	for _, count := range []int64{10, 100} {
		synctest.Test(t, func(t *testing.T) {
			s := small(Both)
			s.InFlight, s.Count, s.Warmup = 64, count, time.Second
			x := target(t, stagebus.Middleware{Name: "slow", Layer: stagebus.Observe, Consumer: func(c stagebus.Consumer) stagebus.Consumer { return slow{c} }})
			p := newPhase(s, x, 100, 0, "t")
			r, err := p.run(t.Context(), func(int64, time.Duration) {})
			if err != nil || r.Measured != count {
				t.Errorf("%v, %d of %d measured", err, r.Measured, count)
			}
		})
	}
}

// A book is right about any order of events, and doesn't keep what is done with.
func TestBook(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		const n = 1000
		b := newBook(3)
		type event struct {
			seq           uint64
			arrive, acked bool
		}
		var events []event
		var want Counts
		for seq := range uint64(n) {
			acked := r.IntN(50) > 0
			events = append(events, event{seq: seq, acked: acked})
			if acked {
				want.Confirmed++
			} else {
				want.Failed++
			}
			copies := 1
			switch r.IntN(100) {
			case 0:
				copies = 0
			case 1:
				copies = 2
			}
			for range copies {
				events = append(events, event{seq: seq, arrive: true})
			}
			want.Received += int64(min(copies, 1))
			want.Duplicate += int64(max(copies-1, 0))
			if copies == 0 && acked {
				want.Lost++
			}
		}
		for i := range events { // events are late by some places
			j := min(len(events)-1, i+r.IntN(20))
			events[i], events[j] = events[j], events[i]
		}
		for _, e := range events {
			if e.arrive {
				b.arrive(e.seq)
			} else {
				b.outcome(e.seq, e.acked, false)
			}
		}
		got := Counts{Confirmed: b.acked, Failed: b.failed, Received: b.arrived, Duplicate: b.doubled, Lost: b.lost()}
		if got != want || b.waiting() != want.Lost {
			t.Fatalf("got %+v, %d waiting, want %+v", got, b.waiting(), want)
		}
	}

	b := newBook(3)
	for seq := range uint64(1 << 16) {
		b.outcome(seq, true, false)
		b.arrive(seq)
	}
	if len(b.words) > 2 {
		t.Errorf("%d words are kept of messages that have arrived", len(b.words))
	}
	if b.arrive(5) || b.doubled != 1 {
		t.Error("a message that is long done with is taken for new")
	}
}

// What ends a run ends it in order: the topics are gone, and the report has what was measured.
func TestInterrupt(t *testing.T) {
	for _, m := range []Mode{Publish, Consume, Both, Request} {
		t.Run(string(m), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := small(m)
				s.Count, s.Duration, s.Rounds = 0, 10*time.Second, 3
				if m != Consume {
					s.Rate = 1000
				} else {
					s.Count = 100_000
				}
				x := target(t)
				r, err := New("v1", []*Target{x}, s)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				steps := 0
				err = r.Run(ctx, func(g Progress) {
					if steps = g.Step; g.Step == 2 && (g.Elapsed >= 3*time.Second || m == Consume) {
						cancel(errBroken)
					}
				})
				rep := r.Report()
				if !errors.Is(err, errBroken) || !rep.Interrupted || steps != 2 || len(rep.Rows) != 1 {
					t.Fatalf("%v, %d steps, %+v", err, steps, rep)
				}
				if n := len(rep.Rows[0].Rounds); n != 2 && m != Consume {
					t.Errorf("%d rounds", n)
				}
				if c := rep.Rows[0].Rounds[len(rep.Rows[0].Rounds)-1].Counts; m != Consume && (c.Lost != 0 || c.Confirmed < 2900 || c.Confirmed > 3300) {
					t.Errorf("the round that was interrupted: %+v", c)
				}
			})
		})
	}
}

// keeper is a broker that deletes nothing.
type keeper struct{ stagebus.Driver }

func (k keeper) Admin() stagebus.Admin { return keepingAdmin{k.Driver.Admin()} }

type keepingAdmin struct{ stagebus.Admin }

func (keepingAdmin) Delete(context.Context, string) error { return errBroken }

// Topics that are left behind are told of after an interrupt too.
func TestInterruptLeavesTopics(t *testing.T) {
	b := stagebus.NewBroker(keeper{memory.New(memory.Options{}).Driver()}, stagebus.BrokerOptions{})
	defer b.Close(context.Background()) //nolint:errcheck // memory
	x, err := NewTarget("memory://", b)
	if err != nil {
		t.Fatal(err)
	}
	s := small(Publish)
	s.Rate, s.Count, s.Duration = 1000, 0, time.Hour
	r, err := New("v1", []*Target{x}, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	errEnough := errors.New("enough")
	if err := r.Run(ctx, func(Progress) { cancel(errEnough) }); !errors.Is(err, errEnough) || !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// A topic that was given keeps what was in it, what others sent, and what bench sent.
func TestGivenTopic(t *testing.T) {
	for _, m := range []Mode{Publish, Consume, Both} {
		x := target(t)
		admin := x.b.Admin()
		if err := admin.Declare(t.Context(), stagebus.TopicSpec{Name: "mine", Partitions: 2}); err != nil {
			t.Fatal(err)
		}
		memorytest.Publish(t, x.b, "mine", "kept")
		s := small(m)
		s.Topic = "mine"
		r := measure(t, s, x)
		for _, row := range r.Rows {
			if c := row.Rounds[0].Counts; c.Confirmed != s.Count || m != Publish && c.Received != s.Count || c.Lost+c.Foreign != 0 {
				t.Errorf("%s: %+v", m, c)
			}
		}
		info, err := admin.Describe(t.Context(), "mine")
		if err != nil {
			t.Fatal(err)
		}
		want := int64(1)
		for range r.Rows {
			want += s.Count
		}
		if len(info.Groups) != 1 || info.Groups[0].Depth != want {
			t.Errorf("%s: it is %+v, want one group with %d messages", m, info, want)
		}
		if err := admin.Delete(t.Context(), "mine"); err != nil {
			t.Error(err)
		}
	}
}

// An error of the broker ends the run with it.
func TestNoTopic(t *testing.T) {
	for _, m := range []Mode{Publish, Both, Consume} {
		s := small(m)
		s.Topic = "nothing"
		r, err := New("v1", []*Target{target(t)}, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context(), func(Progress) {}); !errors.Is(err, stagebus.ErrNoRoute) && !errors.Is(err, stagebus.ErrNotFound) || !strings.Contains(err.Error(), "nothing") {
			t.Errorf("%s: %v", m, err)
		}
		if !r.Report().Interrupted {
			t.Errorf("%s: the report says that it is whole", m)
		}
	}
}

type sick struct{ stagebus.Consumer }

func (sick) Receive(context.Context, []stagebus.Delivery) (int, error) { return 0, errBroken }

// An error of a consumer is said once.
func TestConsumerFails(t *testing.T) {
	x := target(t, stagebus.Middleware{Name: "sick", Layer: stagebus.Observe, Consumer: func(c stagebus.Consumer) stagebus.Consumer { return sick{c} }})
	for _, m := range []Mode{Both, Consume} {
		r, err := New("v1", []*Target{x}, small(m))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context(), func(Progress) {}); err == nil || err.Error() != "broken" {
			t.Errorf("%s: %q", m, err)
		}
	}
}
