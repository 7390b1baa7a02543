package integration

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/integration/broker"
)

const amqpPatience = 30 * time.Second

// amqpOptions are those for a test's broker, with a name of their own by which its connections are found.
func amqpOptions(t *testing.T, b *broker.Broker) amqp.Options {
	t.Helper()
	u, err := url.Parse(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	o, err := amqp.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := b.Management(); ok {
		o.Management = m
	}
	o.Name = "stagebus-test-" + rand.Text()
	return o
}

func amqpOpen(t *testing.T, o amqp.Options) *stagebus.Broker {
	t.Helper()
	bus, err := amqp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), amqpPatience)
		defer cancel()
		if err := bus.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return bus
}

func amqpContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), amqpPatience)
	t.Cleanup(cancel)
	return ctx
}

// amqpRaw is a channel of another client, such as a Python program has.
func amqpRaw(t *testing.T, b *broker.Broker) *amqp091.Channel {
	t.Helper()
	conn, err := amqp091.Dial(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the broker may be gone by then
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// amqpQueue declares a queue as that client would, and deletes it with the test.
func amqpQueue(t *testing.T, b *broker.Broker, durable bool, args amqp091.Table) string {
	t.Helper()
	name := "foreign_" + strings.ToLower(rand.Text())
	ch := amqpRaw(t, b)
	if _, err := ch.QueueDeclare(name, durable, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	})
	return name
}

func amqpTopic(t *testing.T, bus *stagebus.Broker, spec stagebus.TopicSpec) string {
	t.Helper()
	spec.Name = "it." + strings.ToLower(rand.Text())
	if err := bus.Admin().Declare(amqpContext(t), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), amqpPatience)
		defer cancel()
		for _, name := range []string{spec.Name, stagebus.DeadLetterTopic(spec.Name, "")} {
			_ = bus.Admin().Delete(ctx, name) // not all tests leave it there
		}
	})
	return spec.Name
}

func amqpProducer(t *testing.T, bus *stagebus.Broker, o stagebus.ProducerOptions) stagebus.Producer {
	t.Helper()
	p, err := bus.Producer(amqpContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func amqpConsumer(t *testing.T, bus *stagebus.Broker, o stagebus.ConsumerOptions) stagebus.Consumer {
	t.Helper()
	c, err := bus.Consumer(amqpContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func amqpReceive(t *testing.T, c stagebus.Consumer, n int) []stagebus.Delivery {
	t.Helper()
	ctx := amqpContext(t)
	var ds []stagebus.Delivery
	for len(ds) < n {
		dst := make([]stagebus.Delivery, n-len(ds))
		k, err := c.Receive(ctx, dst)
		if err != nil {
			t.Fatalf("received %d of %d: %v", len(ds), n, err)
		}
		ds = append(ds, dst[:k]...)
	}
	return ds
}

func amqpSettle(t *testing.T, c stagebus.Consumer, v stagebus.Verdict, ds ...stagebus.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := c.Settle(amqpContext(t), v, d.Token); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually polls until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := amqpContext(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, amqpPatience)
		}
	}
}

// events is a hook that keeps what it is told.
type events chan stagebus.Event

func newEvents() events { return make(events, 4096) }

func (e events) hook(v stagebus.Event) {
	select {
	case e <- v:
	default: // full: whatever is waited for is in there
	}
}

func (e events) await(t *testing.T, kind stagebus.EventKind) stagebus.Event {
	t.Helper()
	ctx := amqpContext(t)
	for {
		select {
		case v := <-e:
			if v.Kind == kind {
				return v
			}
		case <-ctx.Done():
			t.Fatalf("no event %q within %v", kind, amqpPatience)
		}
	}
}

// closeConnections has the broker end all connections of that name, and returns how many there were. The management API learns
// of connections seconds after they were made.
func closeConnections(t *testing.T, b *broker.Broker, name string) int {
	t.Helper()
	base, ok := b.Management()
	if !ok {
		t.Skip("needs the management API")
	}
	var list []struct {
		Name       string `json:"name"`
		Properties struct {
			Name string `json:"connection_name"`
		} `json:"client_properties"`
	}
	manage(t, http.MethodGet, base+"/api/connections", &list)
	n := 0
	for _, c := range list {
		if c.Properties.Name == name {
			manage(t, http.MethodDelete, base+"/api/connections/"+url.PathEscape(c.Name), nil)
			n++
		}
	}
	return n
}

func manage(t *testing.T, method, address string, into any) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(amqpContext(t), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	r.SetBasicAuth(u.User.Username(), password)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode >= 300 && answer.StatusCode != http.StatusNotFound {
		t.Fatal(fmt.Errorf("%s %s: %s", method, u.Path, answer.Status))
	}
	if into != nil {
		if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
}
