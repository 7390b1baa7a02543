package bench

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small are settings that measure a little.
func small(m Mode) Settings {
	s := Defaults(m)
	s.Sizes, s.Count, s.Duration, s.Warmup, s.Keys, s.Batch = []int{100}, 2000, 0, 0, 5, 64
	return s
}

// target is a memory broker with layers around it.
func target(t *testing.T, layers ...stagebus.Middleware) *Target {
	t.Helper()
	stack, err := stagebus.NewStack(layers...)
	if err != nil {
		t.Fatal(err)
	}
	b := memory.New(memory.Options{Stack: stack})
	t.Cleanup(func() {
		infos, err := b.Admin().List(context.Background())
		if err != nil || len(infos) > 0 {
			t.Errorf("topics are left: %v, %v", infos, err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	x, err := NewTarget("memory://", b)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func measure(t *testing.T, s Settings, targets ...*Target) *Report {
	t.Helper()
	r, err := New("v1", targets, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	return r.Report()
}

func TestModes(t *testing.T) {
	for _, m := range []Mode{Publish, Consume, Both, Request} {
		for _, clients := range []int{1, 3} {
			s := small(m)
			s.Producers, s.Consumers = clients, clients
			r := measure(t, s, target(t))
			loads := []string{LoadMax, LoadHalf}
			if m == Consume {
				loads = loads[:1]
			}
			if len(r.Rows) != len(loads) {
				t.Fatalf("%s: %d rows", m, len(r.Rows))
			}
			for i, row := range r.Rows {
				c := row.Rounds[0].Counts
				want := Counts{Confirmed: s.Count}
				if m != Publish {
					want.Received = s.Count
				}
				if row.Load != loads[i] || c != want || row.Rounds[0].Measured != s.Count {
					t.Errorf("%s, %d clients, %s: %+v, %d measured, want %+v", m, clients, row.Load, c, row.Rounds[0].Measured, want)
				}
				if f := row.Median; f.PerSecond <= 0 || f.BytesPerSecond < 100*f.PerSecond || f.BytesPerSecond > 150*f.PerSecond {
					t.Errorf("%s: %+v", m, f)
				}
				if l := row.Median.Latency; (l != nil) != (row.Load == LoadHalf) || l != nil && (l.P50 < 1 || l.P99 < l.P50 || l.Max < l.P99) {
					t.Errorf("%s, %s: latency %+v", m, row.Load, l)
				}
			}
		}
	}
}

// stall is a layer whose Submit takes long once.
func stall(at time.Time, d time.Duration) stagebus.Middleware {
	var once atomic.Bool
	return stagebus.Middleware{Name: "stall", Layer: stagebus.Observe, Producer: func(p stagebus.Producer) stagebus.Producer {
		return &stalling{p, at, d, &once}
	}}
}

type stalling struct {
	inner stagebus.Producer
	at    time.Time
	d     time.Duration
	once  *atomic.Bool
}

func (p *stalling) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	if !time.Now().Before(p.at) && p.once.CompareAndSwap(false, true) {
		<-time.After(p.d)
	}
	return p.inner.Submit(ctx, ms, done)
}

func (p *stalling) Close(ctx context.Context) error { return p.inner.Close(ctx) }

// A broker that stalls for a second of ten makes a tenth of the messages late. Measured from the call, one of them would be.
func TestNoCoordinatedOmission(t *testing.T) {
	for _, m := range []Mode{Publish, Both, Request} {
		t.Run(string(m), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := small(m)
				s.Rate, s.Count, s.Duration = 1000, 0, 10*time.Second
				r := measure(t, s, target(t, stall(time.Now().Add(5*time.Second), time.Second)))
				round := r.Rows[0].Rounds[0]
				if round.Measured != 10_000 || round.Unsent != 0 || round.Counts.Confirmed != 10_000 {
					t.Fatalf("%+v: not all of the schedule was sent", round)
				}
				l := round.Latency
				for _, x := range []struct {
					name       string
					got        int64
					least, max time.Duration
				}{
					// The bubble's clock stands still but for the stall, so these are exact within the histogram.
					{"p50", l.P50, 0, time.Millisecond},
					{"p90", l.P90, 0, 20 * time.Millisecond},
					{"p99", l.P99, 890 * time.Millisecond, 910 * time.Millisecond},
					{"p99.9", l.P999, 985 * time.Millisecond, 995 * time.Millisecond},
					{"max", l.Max, 999 * time.Millisecond, 1002 * time.Millisecond},
				} {
					if d := time.Duration(x.got); d < x.least || d > x.max {
						t.Errorf("%s is %v, want %v to %v", x.name, d, x.least, x.max)
					}
				}
				if round.LateMax > int64(time.Millisecond) {
					t.Errorf("the generator is blamed for the broker's stall: %v", time.Duration(round.LateMax))
				}
			})
		})
	}
}

// A generator that comes late by itself says so, and sends what was due with the times at which it was.
func TestLateGenerator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := small(Publish)
		p := newPhase(s, target(t), 100, 1000, "t")
		p.start = time.Now().Add(-100 * time.Millisecond)
		g := newGenerator(p, 0, nil)
		g.timer = time.NewTimer(time.Hour)
		defer g.timer.Stop()
		g.scheduled(t.Context())
		if n := len(g.dues); n != s.Batch || g.dues[0] != 0 || g.dues[n-1] != time.Duration(n-1)*time.Millisecond {
			t.Errorf("it sends %v", g.dues)
		}
		if late := p.result().LateMax; late < int64(99*time.Millisecond) || late > int64(102*time.Millisecond) {
			t.Errorf("late by %v", time.Duration(late))
		}
		p.start, g.free = p.start.Add(-time.Second), 1100*time.Millisecond // held up by the broker until now
		g.dues = nil
		g.scheduled(t.Context())
		if late := p.result().LateMax; late > int64(102*time.Millisecond) {
			t.Errorf("the broker held it up, and it counts as late by %v", time.Duration(late))
		}
	})
}

// A schedule that a broker holds up far beyond its end is given up, and what wasn't sent is counted.
func TestUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := small(Publish)
		s.Rate, s.Count, s.Duration = 1000, 0, time.Second
		r := measure(t, s, target(t, stall(time.Now().Add(500*time.Millisecond), time.Minute)))
		round := r.Rows[0].Rounds[0]
		if round.Counts.Confirmed+round.Unsent != 1000 || round.Unsent < 490 || round.Unsent > 500 {
			t.Errorf("%+v", round)
		}
		if l := round.Latency; l.Max < int64(59*time.Second) {
			t.Errorf("the message that was held up for a minute counts as late by %v", time.Duration(l.Max))
		}
	})
}

// Several producers share a rate and take turns.
func TestSchedule(t *testing.T) {
	s := small(Publish)
	s.Producers = 3
	s.Count = 10
	p := newPhase(s, target(t), 100, 100, "t")
	var dues []time.Duration
	var planned int64
	for id := range s.Producers {
		g := newGenerator(p, id, nil)
		planned += g.planned
		for k := range g.planned {
			dues = append(dues, g.due(k))
		}
	}
	slices.Sort(dues)
	for i, d := range dues {
		if want := time.Duration(i) * 10 * time.Millisecond; d < want-1 || d > want+1 {
			t.Errorf("message %d is due at %v", i, d)
		}
	}
	if planned != 10 || len(dues) != 10 {
		t.Errorf("%d messages", planned)
	}
}

var errBroken = errors.New("broken")
