package nearest_test

import (
	"testing"

	"github.com/stagebus/stagebus/internal/nearest"
)

func TestOf(t *testing.T) {
	known := []string{"heartbeat", "prefetch", "sasl"}
	for name, want := range map[string]string{"hartbeat": "heartbeat", "PREFETCH": "prefetch", "sals": "sasl", "x": "", "": "", "frobnicate": ""} {
		if got := nearest.Of(name, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
