package adaptertest_test

import (
	"fmt"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/adaptertest"
	"github.com/stagebus/stagebus/adapters/memory"
)

// An adapter's package has a test like this one. The suite runs twice: on the adapter, and through a stack of middleware.
func ExampleRun() {
	TestLaw := func(t *testing.T) {
		b := memory.New(memory.Options{}) // the broker that all handles reach
		h := adaptertest.Harness{
			Open: func(t testing.TB, o stagebus.BrokerOptions) *stagebus.Broker {
				return stagebus.NewBroker(b.Driver(), o)
			},
			Revokes: true, // lanes move when members of a group come and go
		}
		adaptertest.Run(t, h)
		t.Run("stack", func(t *testing.T) { adaptertest.Run(t, adaptertest.WithStack(h)) })
	}
	_ = TestLaw
}

func ExampleFind() {
	c, _ := adaptertest.Find("retry/delay")
	fmt.Println(c.Proves)
	// Output: a retried message comes again, once, and not before its delay
}
