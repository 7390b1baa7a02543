package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/pipeline"
)

// A stage that turns words into capitals, three at a time, each key in order.
func Example() {
	ctx := context.Background()
	bus := memory.New(memory.Options{})
	defer bus.Close(ctx)

	producer, err := bus.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	words, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"words"}, Create: true})
	if err != nil {
		log.Fatal(err)
	}
	capitals, err := bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"capitals"}, Create: true})
	if err != nil {
		log.Fatal(err)
	}

	running, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		ended <- pipeline.Run(running, pipeline.Stage{
			Name: "capitals", Consumer: words, Producer: producer, Workers: 3,
			Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				if len(d.Body) == 0 {
					return nil, stagebus.Reject("an empty word")
				}
				return []stagebus.Message{{Topic: "capitals", Key: d.Key, Body: bytes.ToUpper(d.Body)}}, stagebus.Done
			},
		})
	}()

	for _, word := range []string{"nothing", "", "is", "lost"} {
		m := stagebus.Message{Topic: "words", Key: []byte("one key, one order"), Body: []byte(word)}
		if err := stagebus.Send(ctx, producer, m); err != nil {
			log.Fatal(err)
		}
	}
	n := 0
	for item, err := range stagebus.All(ctx, capitals) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", item.Body)
		if n++; n == 3 {
			break
		}
	}

	stop()
	fmt.Println(<-ended)
	// Output:
	// NOTHING
	// IS
	// LOST
	// <nil>
}
