package stagebus_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// Publish and consume through the one interface. memory.New stands for adapters.Open with the URL of a RabbitMQ or a Kafka.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	bus := memory.New(memory.Options{})
	defer bus.Close(ctx)

	p, err := bus.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	ms := []stagebus.Message{
		{Topic: "prompts", Key: []byte("user-7"), Body: []byte("why is the sky blue?")},
		{Topic: "prompts", Key: []byte("user-7"), Body: []byte("and at night?")},
	}
	stagebus.Stamp(ms)                                   // an ID for each, so that a resend can be told
	if err := stagebus.Send(ctx, p, ms...); err != nil { // nil: both are durable
		log.Fatal(err)
	}

	c, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"prompts"}, Group: "infer"})
	if err != nil {
		log.Fatal(err)
	}
	left := 2
	for item, err := range stagebus.All(ctx, c) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", item.Key, item.Body)
		if left--; left == 0 {
			if err := item.Done(); err != nil { // going on to the next would do it; break gives the item back
				log.Fatal(err)
			}
			break
		}
	}
	// Output:
	// user-7: why is the sky blue?
	// user-7: and at night?
}

// A batch at a time: what a stage with several workers does. Each delivery gets its own verdict, in any order.
func ExampleConsumer() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	bus := memory.New(memory.Options{})
	defer bus.Close(ctx)
	p, err := bus.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := stagebus.Send(ctx, p, stagebus.Message{Topic: "t", Body: []byte("good")}, stagebus.Message{Topic: "t", Body: []byte("bad")}); err != nil {
		log.Fatal(err)
	}
	c, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"t"}})
	if err != nil {
		log.Fatal(err)
	}
	dst := make([]stagebus.Delivery, 256)
	for handled := 0; handled < 2; {
		n, err := c.Receive(ctx, dst)
		if err != nil {
			log.Fatal(err)
		}
		for _, d := range dst[:n] {
			v := stagebus.Done
			if string(d.Body) == "bad" {
				v = stagebus.Reject("not good")
			}
			if err := c.Settle(ctx, v, d.Token); err != nil {
				log.Fatal(err)
			}
		}
		handled += n
	}
	// The bad one is in a topic of its own now, with the reason.
	dead, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{stagebus.DeadLetterTopic("t", "")}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := dead.Receive(ctx, dst); err != nil {
		log.Fatal(err)
	}
	reason, _ := dst[0].Headers.Get(stagebus.HeaderDeadReason)
	fmt.Printf("%s: %s\n", dst[0].Body, reason)
	if err := dead.Settle(ctx, stagebus.Done, dst[0].Token); err != nil { // what is open makes Close wait for its handler
		log.Fatal(err)
	}
	// Output: bad: not good
}

func ExampleNewBatcher() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	bus := memory.New(memory.Options{})
	defer bus.Close(ctx)
	p, err := bus.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	b := stagebus.NewBatcher(p, stagebus.BatcherOptions{})
	// Handlers call Send concurrently, one message each; the batcher makes batches of what comes together.
	fmt.Println(b.Send(ctx, stagebus.Message{Topic: "t", Body: []byte("one")}))
	fmt.Println(b.Close(ctx))
	// Output:
	// <nil>
	// <nil>
}

// A stack is checked once, when it is made: compressing what was encrypted is a mistake that no run has to find.
func ExampleNewStack() {
	count := stagebus.Transform("count", stagebus.Observe, func(m *stagebus.Message) error { return nil }, nil)
	seal := stagebus.Transform("seal", stagebus.Encrypt, func(m *stagebus.Message) error { return nil }, nil)
	_, err := stagebus.NewStack(count, seal)
	fmt.Println(err)
	_, err = stagebus.NewStack(seal, count)
	fmt.Println(err)
	// Output:
	// <nil>
	// invalid stack "seal, count": seal (encrypt) must come inside count (observe): swap them
}

// An adapter's constructor makes a Broker over its driver; users call that constructor.
func ExampleNewBroker() {
	b := stagebus.NewBroker(stagebus.UnimplementedDriver{}, stagebus.BrokerOptions{})
	_, err := b.Producer(context.Background(), stagebus.ProducerOptions{})
	fmt.Println(err)
	// Output: unsupported
}
