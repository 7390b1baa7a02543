package ladder_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stagebus/stagebus/adapters/internal/ladder"
)

func TestStep(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ after, want time.Duration }{
		{-time.Hour, 100 * ms},
		{0, 100 * ms},
		{1, 100 * ms},
		{100 * ms, 100 * ms},
		{100*ms + 1, 200 * ms},
		{201 * ms, 500 * ms},
		{time.Second, time.Second},
		{1100 * ms, 2 * time.Second},
		{59 * time.Second, time.Minute},
		{time.Hour + 1, 2 * time.Hour},
		{13 * time.Hour, 24 * time.Hour},
		{24 * time.Hour, 24 * time.Hour},
		{1000 * time.Hour, 24 * time.Hour},
		{1<<63 - 1, 24 * time.Hour},
	} {
		if got := ladder.Step(c.after); got != c.want {
			t.Errorf("Step(%v) is %v, want %v", c.after, got, c.want)
		}
	}
}

// A delay is never shortened nor prolonged to more than three times itself, a step is its own, and the steps are few.
func TestSteps(t *testing.T) {
	steps := map[time.Duration]bool{}
	last := time.Duration(0)
	for d := 100 * time.Millisecond; d <= 24*time.Hour; d += d/50 + 1 {
		s := ladder.Step(d)
		if s < d || s > 3*d || s < last {
			t.Fatalf("Step(%v) is %v after %v", d, s, last)
		}
		if again := ladder.Step(s); again != s {
			t.Fatalf("Step(%v) is %v", s, again)
		}
		steps[s], last = true, s
	}
	if len(steps) > 20 {
		t.Errorf("%d steps: each is a queue or a topic for every group", len(steps))
	}
}

func ExampleMillis() {
	fmt.Println("prompts--default--retry-" + ladder.Millis(ladder.Step(1500*time.Millisecond)))
	// Output: prompts--default--retry-2000
}
