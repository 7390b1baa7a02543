package integration_test

import (
	"fmt"
	"testing"

	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/integration/broker"
)

// A test here asks for a broker, which is the environment's, Docker's or a native one, and is skipped where none is to be had.
func Example() {
	_ = func(t *testing.T) {
		b, err := adapters.Open(t.Context(), broker.Require(t, broker.AMQP).URL(), adapters.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		fmt.Println(b.Capabilities().Replay)
	}
}
