package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/kafka"
)

func ExampleNew() {
	b, err := kafka.New(kafka.Options{Brokers: []string{"127.0.0.1:1"}}) // nobody listens there
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer func() { _ = b.Close(ctx) }()

	// New doesn't connect; the first producer or consumer does, and fails fast.
	_, err = b.Producer(ctx, stagebus.ProducerOptions{})
	fmt.Println(errors.Is(err, stagebus.ErrUnavailable))
	// Output: true
}

func ExampleParseURL() {
	u, err := url.Parse("kafka://stage:secret@broker-1:9092,broker-2:9092/?auth_mechanism=scram-sha-256")
	if err != nil {
		fmt.Println(err)
		return
	}
	o, err := kafka.ParseURL(u)
	fmt.Println(o.Brokers, o.SASL.Mechanism, o.SASL.User, err)
	// Output: [broker-1:9092 broker-2:9092] scram-sha-256 stage <nil>
}
