package deadletter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/deadletter"
)

func ExampleLetter_Headers() {
	l := deadletter.Letter{
		Reason: "no such model", Origin: stagebus.Position{Topic: "queue:prompts", Partition: 2, Offset: 41}, Attempt: 3,
		Rejected: time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC),
	}
	for _, h := range l.Headers() {
		fmt.Println(h.Key, h.Value)
	}
	// Output:
	// stagebus-dead-reason no such model
	// stagebus-dead-topic queue:prompts
	// stagebus-dead-partition 2
	// stagebus-dead-offset 41
	// stagebus-dead-group default
	// stagebus-dead-attempt 3
	// stagebus-dead-time 2026-11-05T12:00:00Z
}

func TestReasonsAreCutBetweenCharacters(t *testing.T) {
	for _, c := range []struct {
		reason string
		want   int
	}{
		{strings.Repeat("x", 1024), 1024},
		{strings.Repeat("x", 1025), 1024},
		{"x" + strings.Repeat("ä", 600), 1023},
		{"xx" + strings.Repeat("😀", 300), 1022},
		{strings.Repeat("\x80", 2000), 1024},
	} {
		got, _ := deadletter.Letter{Reason: c.reason}.Headers().Get(stagebus.HeaderDeadReason)
		if len(got) != c.want || utf8.ValidString(c.reason) && !utf8.ValidString(got) {
			t.Errorf("cut to %d bytes, want %d", len(got), c.want)
		}
	}
}

func TestIsFindsAllOfThem(t *testing.T) {
	for _, h := range (deadletter.Letter{}).Headers() {
		if !deadletter.Is(h.Key) {
			t.Errorf("%s is not found", h.Key)
		}
	}
	if deadletter.Is("stagebus-attempt") || deadletter.Is("x") {
		t.Error("others are")
	}
}
