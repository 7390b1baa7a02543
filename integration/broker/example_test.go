package broker_test

import (
	"testing"

	"github.com/stagebus/stagebus/integration/broker"
)

// The broker that all tests share.
func ExampleRequire() {
	_ = func(t *testing.T) {
		b := broker.Require(t, broker.Kafka)
		t.Log(b.URL())
	}
}

// A broker of one's own, to be broken.
func ExamplePrivate() {
	_ = func(t *testing.T) {
		b := broker.Private(t, broker.AMQP)
		if err := b.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
