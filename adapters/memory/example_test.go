package memory_test

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ExampleNew() {
	ctx := context.Background()
	b := memory.New(memory.Options{})
	defer func() { must(b.Close(ctx)) }()

	p, err := b.Producer(ctx, stagebus.ProducerOptions{Create: true})
	must(err)
	must(stagebus.Send(ctx, p,
		stagebus.Message{Topic: "prompts", Body: []byte("hello")},
		stagebus.Message{Topic: "prompts", Body: []byte("world")}))

	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"prompts"}})
	must(err)
	for item, err := range stagebus.All(ctx, c) {
		must(err)
		fmt.Printf("%s at %d\n", item.Body, item.Position.Offset)
		if item.Position.Offset == 1 {
			break
		}
	}
	// Output:
	// hello at 0
	// world at 1
}

func ExampleOpen() {
	ctx := context.Background()
	u, err := url.Parse("memory://orders?partitions=4")
	must(err)
	b, err := memory.Open(u, memory.Options{})
	must(err)
	same, err := memory.Open(&url.URL{Scheme: "memory", Host: "orders"}, memory.Options{})
	must(err)
	defer func() { must(b.Close(ctx)); must(same.Close(ctx)) }()

	must(b.Admin().Declare(ctx, stagebus.TopicSpec{Name: "t"}))
	info, err := same.Admin().Describe(ctx, "t")
	must(err)
	fmt.Println(info.Name, len(info.Partitions))
	// Output: t 4
}

// A delivery that failed is tried again later, and put aside after that.
func ExampleNew_retry() {
	ctx := context.Background()
	b := memory.New(memory.Options{})
	defer func() { must(b.Close(ctx)) }()
	must(b.Admin().Declare(ctx, stagebus.TopicSpec{Name: "prompts"}))
	p, err := b.Producer(ctx, stagebus.ProducerOptions{})
	must(err)
	must(stagebus.Send(ctx, p, stagebus.Message{Topic: "prompts", Body: []byte("bad")}))

	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"prompts", stagebus.DeadLetterTopic("prompts", "")}, Create: true})
	must(err)
	for item, err := range stagebus.All(ctx, c) {
		must(err)
		reason, dead := item.Headers.Get(stagebus.HeaderDeadReason)
		switch {
		case dead:
			fmt.Printf("dead: %s\n", reason)
		case item.Attempt < 2:
			fmt.Println("attempt", item.Attempt)
			must(item.Retry(100 * time.Millisecond))
			continue
		default:
			fmt.Println("attempt", item.Attempt)
			must(item.Reject("still bad"))
			continue
		}
		break
	}
	// Output:
	// attempt 1
	// attempt 2
	// dead: still bad
}
