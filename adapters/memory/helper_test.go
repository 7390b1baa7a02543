package memory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within bounds one test's waits: nothing here takes longer unless it hangs.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func newBroker(t testing.TB, o memory.Options, specs ...stagebus.TopicSpec) *stagebus.Broker {
	t.Helper()
	b := memory.New(o)
	t.Cleanup(func() { check(t, b.Close(context.Background())) })
	for _, s := range specs {
		check(t, b.Admin().Declare(within(t), s))
	}
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err error, kinds ...error) {
	t.Helper()
	for _, k := range kinds {
		if !errors.Is(err, k) {
			t.Fatalf("error %v, want %v", err, k)
		}
	}
}

func producer(t testing.TB, b *stagebus.Broker, o stagebus.ProducerOptions) stagebus.Producer {
	t.Helper()
	p, err := b.Producer(within(t), o)
	check(t, err)
	return p
}

// consumer opens one with a drain time so short that an abandoned delivery doesn't keep the test, unless o says otherwise.
func consumer(t testing.TB, b *stagebus.Broker, o stagebus.ConsumerOptions) stagebus.Consumer {
	t.Helper()
	if o.Drain == 0 {
		o.Drain = time.Nanosecond
	}
	c, err := b.Consumer(within(t), o)
	check(t, err)
	return c
}

func send(t testing.TB, b *stagebus.Broker, ms ...stagebus.Message) {
	t.Helper()
	p := producer(t, b, stagebus.ProducerOptions{})
	check(t, stagebus.Send(within(t), p, ms...))
	check(t, p.Close(within(t)))
}

// sendN sends messages with the bodies 0, 1, 2…
func sendN(t testing.TB, b *stagebus.Broker, topic string, n int) {
	t.Helper()
	var ms []stagebus.Message
	for i := range n {
		ms = append(ms, stagebus.Message{Topic: topic, Body: fmt.Append(nil, i)})
	}
	send(t, b, ms...)
}

// receive waits for n deliveries.
func receive(t testing.TB, c stagebus.Consumer, n int) []stagebus.Delivery {
	t.Helper()
	var ds []stagebus.Delivery
	dst := make([]stagebus.Delivery, n)
	for len(ds) < n {
		k, err := c.Receive(within(t), dst[:n-len(ds)])
		if err != nil {
			t.Fatalf("received %d of %d: %v", len(ds), n, err)
		}
		ds = append(ds, dst[:k]...)
	}
	return ds
}

// nothing checks that no delivery is there now. Appends and settlements take effect before they return, so there is nothing to wait for.
func nothing(t testing.TB, c stagebus.Consumer) {
	t.Helper()
	var dst [1]stagebus.Delivery
	if _, err := c.Receive(newLastLook(t), dst[:]); !errors.Is(err, context.Canceled) {
		t.Fatalf("received %q at %v (error %v), want nothing", dst[0].Body, dst[0].Position, err)
	}
}

// lastLook is a context that ends when somebody begins to wait for it: after the receiver has looked and found nothing.
type lastLook struct {
	context.Context
	cancel context.CancelFunc
	once   sync.Once
}

func newLastLook(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	return &lastLook{Context: ctx, cancel: cancel}
}

func (l *lastLook) Done() <-chan struct{} {
	l.once.Do(l.cancel)
	return l.Context.Done()
}

func bodies(ds []stagebus.Delivery) []string {
	var s []string
	for i := range ds {
		s = append(s, string(ds[i].Body))
	}
	return s
}

func tokens(ds []stagebus.Delivery) []stagebus.Token {
	var ts []stagebus.Token
	for i := range ds {
		ts = append(ts, ds[i].Token)
	}
	return ts
}

func wantBodies(t testing.TB, ds []stagebus.Delivery, want ...string) {
	t.Helper()
	if got := bodies(ds); !slices.Equal(got, want) {
		t.Fatalf("received %q, want %q", got, want)
	}
}

func describe(t testing.TB, b *stagebus.Broker, topic string) stagebus.TopicInfo {
	t.Helper()
	info, err := b.Admin().Describe(within(t), topic)
	check(t, err)
	return info
}

func depth(t testing.TB, b *stagebus.Broker, topic, group string) int64 {
	t.Helper()
	for _, g := range describe(t, b, topic).Groups {
		if g.Name == group {
			return g.Depth
		}
	}
	t.Fatalf("topic %q has no group %q", topic, group)
	return 0
}

// events is a hook that remembers.
type events struct {
	mu   sync.Mutex
	all  []stagebus.Event
	more chan struct{} // closed and replaced at each event
}

func (e *events) hook(x stagebus.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
	if e.more != nil {
		close(e.more)
		e.more = nil
	}
}

// wait returns the first event of that kind, and waits for it.
func (e *events) wait(t testing.TB, kind stagebus.EventKind) stagebus.Event {
	t.Helper()
	for ctx := within(t); ; {
		e.mu.Lock()
		if i := slices.IndexFunc(e.all, func(x stagebus.Event) bool { return x.Kind == kind }); i >= 0 {
			defer e.mu.Unlock()
			return e.all[i]
		}
		if e.more == nil {
			e.more = make(chan struct{})
		}
		more := e.more
		e.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("no event %q", kind)
		}
	}
}
