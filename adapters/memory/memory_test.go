package memory_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestFidelity(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	now := time.Now()
	ms := []stagebus.Message{
		{Topic: "t", Body: nil, Time: now},
		{Topic: "t", Body: []byte{}, Key: []byte{}, Time: now},
		{Topic: "t", Body: []byte{0, 255, 10}, Key: []byte("k\x00"), Time: now, Headers: stagebus.Headers{{Key: "a", Value: ""}, {Key: "A", Value: "\xff"}, {Key: "a", Value: "2"}}},
		{Topic: "t", Time: now, ID: "1", Source: "2", Type: "3", Subject: "4", ContentType: "5", ContentEncoding: "6", CorrelationID: "7", ReplyTo: "8", Audience: "9",
			Deadline: now.Add(time.Hour), Priority: 7},
	}
	send(t, b, ms...)
	for i, d := range receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}}), len(ms)) {
		if !reflect.DeepEqual(d.Message, ms[i]) {
			t.Errorf("received %+v, sent %+v", d.Message, ms[i])
		}
		if d.Attempt != 1 || d.Redelivered || d.Err != nil || d.Peer != nil || d.Position != (stagebus.Position{Topic: "t", Offset: int64(i)}) {
			t.Errorf("delivery %d: %+v", i, d)
		}
	}
}

// The sender has its bytes back when done has run, and two receivers can't write over each other's by appending.
func TestCopies(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Groups: []string{"a", "b"}})
	m := stagebus.Message{Topic: "t", Key: []byte("key"), Body: []byte("body"), Headers: stagebus.Headers{{Key: "h", Value: "v"}}}
	send(t, b, m)
	m.Key[0], m.Body[0], m.Headers[0] = 'X', 'X', stagebus.Header{Key: "X"}

	da := receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "a"}), 1)[0]
	if string(da.Key) != "key" || string(da.Body) != "body" || da.Headers[0].Key != "h" {
		t.Fatalf("the sender wrote into %+v", da.Message)
	}
	db := receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "b"}), 1)[0]
	xa, xb := append(da.Body, '1'), append(db.Body, '2')
	ha, hb := append(da.Headers, stagebus.Header{Key: "1"}), append(db.Headers, stagebus.Header{Key: "2"})
	if string(xa) != "body1" || string(xb) != "body2" || ha[1].Key != "1" || hb[1].Key != "2" {
		t.Fatalf("%q and %q, %v and %v share spare capacity", xa, xb, ha, hb)
	}
	if da.Time.IsZero() {
		t.Error("a message without a time got none from the broker")
	}
}

func TestOptions(t *testing.T) {
	b := newBroker(t, memory.Options{MaxMessage: 10, Partitions: 3})
	p := producer(t, b, stagebus.ProducerOptions{Create: true})
	wantErr(t, stagebus.Send(within(t), p, stagebus.Message{Topic: "t", Body: make([]byte, 11)}), stagebus.ErrTooLarge)
	check(t, stagebus.Send(within(t), p, stagebus.Message{Topic: "t", Body: make([]byte, 10)}))
	if n := len(describe(t, b, "t").Partitions); n != 3 {
		t.Errorf("%d partitions, want 3", n)
	}
	if got := memory.New(memory.Options{}).Capabilities().MaxMessage; got != 16<<20 {
		t.Errorf("MaxMessage is %d, want 16 MiB", got)
	}
	for name, err := range map[string]error{
		"producer": third(b.Producer(within(t), stagebus.ProducerOptions{Native: 1})),
		"consumer": third(b.Consumer(within(t), stagebus.ConsumerOptions{Topics: []string{"t"}, Native: 1})),
		"topic":    b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "n", Native: 1}),
	} {
		if !errors.Is(err, stagebus.ErrInvalid) {
			t.Errorf("%s with the options of another broker: %v", name, err)
		}
	}
}

func third[T any](_ T, err error) error { return err }

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	check(t, err)
	return u
}

func TestOpenShared(t *testing.T) {
	open := func(s string) *stagebus.Broker {
		b, err := memory.Open(parse(t, s), memory.Options{})
		check(t, err)
		return b
	}
	a, b := open("memory://TestOpenShared?partitions=2"), open("memory://TestOpenShared")
	check(t, a.Admin().Declare(within(t), stagebus.TopicSpec{Name: "t"}))
	if n := len(describe(t, b, "t").Partitions); n != 2 {
		t.Errorf("%d partitions, want 2", n)
	}
	p1, p2 := open("memory://"), open("memory://")
	check(t, p1.Admin().Declare(within(t), stagebus.TopicSpec{Name: "t"}))
	_, err := p2.Admin().Describe(within(t), "t")
	wantErr(t, err, stagebus.ErrNotFound)

	check(t, a.Close(within(t)))
	wantErr(t, a.Driver().Ping(within(t)), stagebus.ErrClosed)
	check(t, a.Driver().Close(within(t))) // again: must not count twice
	c := open("memory://TestOpenShared")
	describe(t, c, "t")
	for _, x := range []*stagebus.Broker{b, c, p1, p2} {
		check(t, x.Ping(within(t)))
		check(t, x.Close(within(t)))
	}
	d := open("memory://TestOpenShared")
	_, err = d.Admin().Describe(within(t), "t")
	wantErr(t, err, stagebus.ErrNotFound) // it ended with its last handle
	check(t, d.Close(within(t)))
}

func TestOpenRefuses(t *testing.T) {
	for _, s := range []string{
		"kafka://h", "memory:opaque", "memory://u:secret@h", "memory://h/path", "memory://h#f",
		"memory://?partition=1", "memory://?partitions=x", "memory://?partitions=10001", "memory://?capacity=-1",
	} {
		_, err := memory.Open(parse(t, s), memory.Options{})
		if !errors.Is(err, stagebus.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", s, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	_, err := memory.Open(parse(t, "memory://?partition=1"), memory.Options{})
	if err == nil || !strings.Contains(err.Error(), `"partitions"`) {
		t.Errorf("%v doesn't name the nearest parameter", err)
	}
}

func TestEndedContexts(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	p := producer(t, b, stagebus.ProducerOptions{})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	sendN(t, b, "t", 1)
	a := b.Admin()
	ctx := ended()
	for name, err := range map[string]error{
		"Producer": third(b.Producer(ctx, stagebus.ProducerOptions{})),
		"Consumer": third(b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"t"}})),
		"Tx":       third(b.Tx(ctx, stagebus.ProducerOptions{}, stagebus.ConsumerOptions{Topics: []string{"t"}})),
		"Ping":     b.Ping(ctx),
		"Send":     stagebus.Send(ctx, p, stagebus.Message{Topic: "t"}),
		"Receive":  third(c.Receive(ctx, make([]stagebus.Delivery, 1))),
		"Declare":  a.Declare(ctx, stagebus.TopicSpec{Name: "u"}),
		"Describe": third(a.Describe(ctx, "t")),
		"List":     third(a.List(ctx)),
		"Delete":   a.Delete(ctx, "t"),
		"Purge":    a.Purge(ctx, "t", ""),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	wantBodies(t, receive(t, c, 1), "0")
	if n := describe(t, b, "t").Partitions[0].Next; n != 1 {
		t.Errorf("the log has %d messages, want 1", n)
	}
}

func TestBrokerCloseEndsAll(t *testing.T) {
	b := memory.New(memory.Options{})
	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "t"}))
	p := producer(t, b, stagebus.ProducerOptions{})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	got := make(chan error, 1)
	go func() { _, err := c.Receive(context.Background(), make([]stagebus.Delivery, 1)); got <- err }()
	check(t, b.Close(within(t)))
	wantErr(t, <-got, io.EOF)
	wantErr(t, stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}), stagebus.ErrClosed)
	check(t, c.Close(within(t)))
	check(t, p.Close(within(t)))
}
