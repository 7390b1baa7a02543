package adaptertest_test

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/adaptertest"
	"github.com/stagebus/stagebus/adapters/memory"
)

// overMemory is a harness for a memory broker of its own, seen through wrap (nil: as it is).
func overMemory(wrap func(stagebus.Driver) stagebus.Driver) adaptertest.Harness {
	u := &url.URL{Scheme: "memory", Host: "law-" + rand.Text()}
	return adaptertest.Harness{
		Open: func(t testing.TB, o stagebus.BrokerOptions) *stagebus.Broker {
			b, err := memory.Open(u, memory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			d := b.Driver()
			if wrap != nil {
				d = wrap(d)
			}
			return stagebus.NewBroker(d, o)
		},
		Capacity: true,
		Revokes:  true,
		Allocs:   4,
	}
}

// TestLaw runs the suite on memory a few times; with STAGEBUS_LONG a hundred times.
func TestLaw(t *testing.T) {
	runs := 2
	if os.Getenv("STAGEBUS_LONG") != "" {
		runs = 100
	}
	for i := range runs {
		t.Run(fmt.Sprint(i), func(t *testing.T) { adaptertest.Run(t, overMemory(nil)) })
	}
}

func TestLawThroughStack(t *testing.T) {
	h := overMemory(nil)
	h.Allocs = 0
	adaptertest.Run(t, adaptertest.WithStack(h))
}
