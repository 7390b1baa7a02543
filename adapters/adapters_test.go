package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
)

func Example() {
	ctx := context.Background()
	broker, err := adapters.Open(ctx, "memory://", adapters.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close(ctx) //nolint:errcheck // an example

	producer, err := broker.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := stagebus.Send(ctx, producer, stagebus.Message{Topic: "prompts", Body: []byte("Hello World")}); err != nil {
		fmt.Println(err)
		return
	}
	consumer, err := broker.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"prompts"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for item, err := range stagebus.All(ctx, consumer) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", item.Body)
		break
	}
	// Output: Hello World
}

func TestOpenRefusesURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                                     `invalid URL "": it begins with amqp://, amqps://, kafka://, kafkas://, memory://`,
		"localhost:9092":                       "it begins with",
		"amqp:localhost":                       "it begins with",
		"user:hunter2@localhost":               "it begins with",
		"user:hunter2@host://x":                `invalid URL scheme "": unknown; known are`,
		"hunter2/amqp://x":                     `invalid URL scheme "": unknown`,
		"rabbitmq://u:hunter2@h":               `invalid URL scheme "rabbitmq": unknown; known are`,
		"amqpz://u:hunter2@h":                  `invalid URL scheme "amqpz": unknown; did you mean "amqp`,
		"Kafke://u:hunter2@h":                  `did you mean "kafka"?`,
		"amqp://u:hunter2/x@h/":                `invalid URL "amqp://…": it is SCHEME://`,
		"amqp://u:12/hunter2@h/":               `invalid URL "amqp://…": it is SCHEME://`,
		"amqp://u:12#hunter2@h/":               `invalid URL "amqp://…": it is SCHEME://`,
		"amqp://u:12?hunter2@h/":               `invalid URL "amqp://…": it is SCHEME://`,
		"amqp://u:%zzhunter2@h/":               "(/ is %2F",
		"kafka://u:hunter2@h:port":             "it is SCHEME://",
		"memory://u:hunter2@h":                 "only memory://",
		"memory://?partition=2":                `invalid URL parameter "partition": unknown; did you mean "partitions"?`,
		"amqp://u:hunter2@h/?heartbeet=1s":     `did you mean "heartbeat"?`,
		"amqp://u:hunter2@h/?heartbeat=fast":   "not a positive duration",
		"kafka://u:hunter2@h/?auth_mechanism=": "auth_mechanism",
		"kafkas://u:hunter2@h/?cacertfil=x":    `did you mean "cacertfile"?`,
	} {
		b, err := adapters.Open(t.Context(), url, adapters.Options{})
		if !errors.Is(err, stagebus.ErrInvalid) || b != nil {
			t.Errorf("%s: got %v, %v", url, b, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the password is shown: %v", url, err)
		}
		if check := adapters.CheckURL(url); check == nil || check.Error() != err.Error() {
			t.Errorf("%s: CheckURL says %v, Open %v", url, check, err)
		}
	}
	for _, url := range []string{"memory://", "memory://a", "amqp://u:p@no-such-host.invalid/v", "amqp://no-such-host.invalid/v@w", "amqp://no-such-host.invalid:5672/v%40w", "amqp://u:p@no-such-host.invalid:5672/v@w",
		"kafka://127.0.0.1:1"} {
		if err := adapters.CheckURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A broker that refuses, and one that takes connections and never says a word: both are told within the context.
func TestOpenUnreachable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() }) //nolint:errcheck // a listener
	for _, scheme := range []string{"amqp", "kafka", "amqps", "kafkas"} {
		for name, host := range map[string]string{"refused": "127.0.0.1:1", "silent": silent.Addr().String(), "no such host": "no-such-host.invalid"} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				b, err := adapters.Open(ctx, scheme+"://u:hunter2@"+host, adapters.Options{})
				if !errors.Is(err, stagebus.ErrUnavailable) || b != nil {
					t.Fatalf("got %v, %v", b, err)
				}
				if ctx.Err() != nil && name != "silent" {
					t.Errorf("it took all of the time to see that nobody is there: %v", err)
				}
				if !strings.Contains(err.Error(), scheme+"://") || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("want the URL without the password: %v", err)
				}
			})
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b, err := adapters.Open(ctx, "memory://", adapters.Options{}); err == nil {
		t.Errorf("got %v", b)
	}
}

func TestOptionsReachTheAdapter(t *testing.T) {
	mark := stagebus.Transform("mark", stagebus.Structure, func(m *stagebus.Message) error { m.Body = append([]byte("marked "), m.Body...); return nil }, nil)
	stack, err := stagebus.NewStack(mark)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan stagebus.Event, 100)
	b, err := adapters.Open(t.Context(), "memory://", adapters.Options{Stack: stack, Hook: func(e stagebus.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background()) //nolint:errcheck // memory
	p, err := b.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := stagebus.Send(t.Context(), p, stagebus.Message{Topic: "t", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	c, err := b.Consumer(t.Context(), stagebus.ConsumerOptions{Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	ds := make([]stagebus.Delivery, 1)
	if _, err := c.Receive(t.Context(), ds); err != nil || string(ds[0].Body) != "marked x" {
		t.Errorf("got %q, %v", ds[0].Body, err)
	}
	if err := c.Settle(t.Context(), stagebus.Done, ds[0].Token); err != nil {
		t.Error(err)
	}
	if e := <-events; e.Kind != stagebus.EventAssigned {
		t.Errorf("got %+v", e)
	}
}
