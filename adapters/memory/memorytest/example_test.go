package memorytest_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
)

// shout is the stage under test: it handles what is in topic "in" until its context ends.
func shout(ctx context.Context, b *stagebus.Broker) error {
	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"in"}, Create: true})
	if err != nil {
		return err
	}
	p, err := b.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		return err
	}
	for item, err := range stagebus.All(ctx, c) {
		if err != nil {
			return err
		}
		out := stagebus.Message{Topic: "out", Body: bytes.ToUpper(item.Body)}
		if err := stagebus.Send(ctx, p, out); err != nil {
			return err
		}
	}
	return nil
}

// testShout is its test: messages go in, others must come out.
func testShout(t *testing.T) {
	b := memory.New(memory.Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- shout(ctx, b) }()

	memorytest.Publish(t, b, "in", "hello", "world")
	memorytest.Expect(t, b, "out", "HELLO", "WORLD")

	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if more := memorytest.Drain(t, b, "out"); len(more) > 0 {
		t.Errorf("%d messages too many", len(more))
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func Example() {
	_ = testShout // in a program's own test file it is called TestShout
}
