package amqp_test

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
)

func ExampleNew() {
	bus, err := amqp.New(amqp.Options{
		Addresses: []string{"rabbit-1:5672", "rabbit-2:5672"},
		User:      "stage", Password: "secret",
		Hook: func(e stagebus.Event) { log.Print(e.Kind, " ", e.Topic, " ", e.Err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// New has not connected: this does.
	fmt.Println(bus.Capabilities().KeyOrder, bus.Close(ctx))
	// Output: true <nil>
}

func ExampleParseURL() {
	u, err := url.Parse("amqp://stage:s%40cret@rabbit-1,rabbit-2:5673/models?heartbeat=5s&queue_type=classic")
	if err != nil {
		log.Fatal(err)
	}
	o, err := amqp.ParseURL(u)
	fmt.Println(o.Addresses, o.User, o.Vhost, o.Heartbeat, o.QueueType, err)

	u.RawQuery = "hartbeat=5s"
	_, err = amqp.ParseURL(u)
	fmt.Println(err)
	// Output:
	// [rabbit-1 rabbit-2:5673] stage models 5s classic <nil>
	// invalid URL parameter "hartbeat": unknown; did you mean "heartbeat"?
}
