package memorytest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
)

func newBroker(t testing.TB, o memory.Options) *stagebus.Broker {
	b := memory.New(o)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestHelpers(t *testing.T) {
	b := newBroker(t, memory.Options{})
	if ms := memorytest.Drain(t, b, "t"); ms != nil {
		t.Errorf("%d messages in a topic that doesn't exist", len(ms))
	}
	memorytest.Publish(t, b, "t", "a", "b", "c")
	if ms := memorytest.Expect(t, b, "t", "a", "b"); len(ms) != 2 || string(ms[1].Body) != "b" {
		t.Errorf("%+v", ms)
	}
	if ms := memorytest.Drain(t, b, "t"); len(ms) != 1 || string(ms[0].Body) != "c" {
		t.Errorf("%+v", ms)
	}
	if ms := memorytest.Drain(t, b, "t"); len(ms) != 0 {
		t.Errorf("%+v", ms)
	}
	// The group of the program under test has lost nothing.
	info, err := b.Admin().Describe(t.Context(), "t")
	if err != nil || info.Groups[0].Name != stagebus.DefaultGroup || info.Groups[0].Depth != 3 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestExpectPartitions(t *testing.T) {
	b := newBroker(t, memory.Options{Partitions: 3})
	memorytest.Publish(t, b, "t", "a", "b", "c")
	memorytest.Expect(t, b, "t", "c", "b", "a")
}

// A message that comes while Expect waits is seen.
func TestExpectWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		go func() {
			<-time.After(memorytest.Patience / 2)
			memorytest.Publish(t, b, "t", "late")
		}()
		memorytest.Expect(t, b, "t", "late")
	})
}

// recorder is a testing.TB that remembers the first failure.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure runs f and returns how it failed.
func failure(t *testing.T, f func(testing.TB)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.failure
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := stagebus.Transform("bad", stagebus.Sign, nil, func(d *stagebus.Delivery) error {
			if string(d.Body) == "bad" {
				return errors.New("no signature")
			}
			return nil
		})
		stack, err := stagebus.NewStack(bad)
		if err != nil {
			t.Fatal(err)
		}
		b := newBroker(t, memory.Options{Stack: stack, MaxMessage: 5})
		memorytest.Publish(t, b, "t", "a", "b", "bad")
		for want, f := range map[string]func(testing.TB){
			"too large": func(r testing.TB) { memorytest.Publish(r, b, "t", "larger") },
			"invalid":   func(r testing.TB) { memorytest.Publish(r, b, "not a topic", "x") },
			"deadline":  func(r testing.TB) { memorytest.Expect(r, b, "empty", "x") },
		} {
			if got := failure(t, f); !strings.Contains(got, want) {
				t.Errorf("failed with %q, want %q", got, want)
			}
		}
		if got := failure(t, func(r testing.TB) { memorytest.Expect(r, b, "t", "b", "a") }); got != `topic "t": received ["a" "b"], want ["b" "a"]` {
			t.Error(got)
		}
		if got := failure(t, func(r testing.TB) { memorytest.Drain(r, b, "t") }); !strings.Contains(got, "no signature") {
			t.Error(got)
		}
	})
}

func TestFaults(t *testing.T) {
	var f memorytest.Faults
	stack, err := stagebus.NewStack(f.Middleware())
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, memory.Options{Stack: stack})
	p, err := b.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	f.Fail(2, stagebus.ErrUnavailable)
	f.Lose(1)
	for i, want := range []error{stagebus.ErrUnavailable, stagebus.ErrUnavailable, stagebus.ErrUncertain, nil} {
		err := stagebus.Send(t.Context(), p, stagebus.Message{Topic: "t", Body: fmt.Append(nil, i)})
		if !errors.Is(err, want) {
			t.Errorf("send %d: %v, want %v", i, err, want)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	memorytest.Expect(t, b, "t", "2", "3")
	if ms := memorytest.Drain(t, b, "t"); len(ms) != 0 {
		t.Errorf("%+v", ms)
	}
}

func TestExample(t *testing.T) { testShout(t) }
