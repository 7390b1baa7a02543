package pipeline_test

import (
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/pipeline"
)

// Everything that goes in comes out, once, each key in its order, whatever the number of workers.
func TestForward(t *testing.T) {
	for _, workers := range []int{1, 2, 16} {
		b := newBroker(t, memory.Options{Partitions: 4})
		ks := append(keys(20), "-nokey")
		send(t, b, "in", 200, ks...)
		s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Handle: forward, Workers: workers})
		out := newBook().read(t, b, "out")
		out.await(t, 200*len(ks))
		s.stop()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d inputs are not settled", n)
		}
		if n := out.duplicates(); n != 0 {
			t.Errorf("%d duplicates", n)
		}
		out.inOrder(t)
	}
}
