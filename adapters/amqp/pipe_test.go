package amqp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

func testPipe(ctx context.Context) *pipe {
	return &pipe{p: &publisher{ctx: ctx, window: newWindow(100, 1000)}, wake: make(chan struct{}, 1)}
}

func twoWays(name string) *publication {
	return &publication{b: &batch{ctx: context.Background()}, topic: "t", queue: "t", via: viaExchange | direct, twoWays: true, msg: amqp091.Publishing{MessageId: name}}
}

// One pipe has messages of a topic on their way over the exchange, and another learns that they will come back: a message that took the
// learnt way at once would overtake them.
func TestPipeKeepsToOneRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testPipe(t.Context())
		first, second := twoWays("first"), twoWays("second")
		first.state.Store(leaving)
		if !l.takeOff(first, viaExchange) {
			t.Fatal("the first doesn't leave")
		}
		other := &publication{topic: "queue:q", via: direct}
		if !l.takeOff(other, direct) {
			t.Fatal("a message of another topic is held up")
		}
		left := make(chan bool, 1)
		go func() { left <- l.takeOff(second, direct) }()
		synctest.Wait()
		select {
		case <-left:
			t.Fatal("it didn't wait for the one that comes back")
		default:
		}
		l.putBack(second)
		first.via = direct
		l.repeat(first)
		if <-left {
			t.Fatal("it left before the one that came back")
		}
		if pub := l.next(); pub != nil {
			t.Fatalf("%s is next, while another message is on its way", pub.msg.MessageId)
		}
		l.land(other)
		for _, want := range []*publication{first, second} {
			if pub := l.next(); pub != want {
				t.Fatalf("next is %+v, want %s", pub, want.msg.MessageId)
			}
			if !l.takeOff(want, direct) {
				t.Fatal("it doesn't leave")
			}
		}
		l.land(first)
		l.land(second)
		if l.inflight != 0 || len(l.flying) != 0 {
			t.Errorf("%d, %v", l.inflight, l.flying)
		}
	})
}

// What is put back takes its old place, also when others came back meanwhile.
func TestPipePutBack(t *testing.T) {
	l := testPipe(t.Context())
	a, b, c := twoWays("a"), twoWays("b"), twoWays("c")
	l.push(b)
	l.push(c)
	if l.next() != b {
		t.Fatal("not the first")
	}
	if !l.takeOff(a, viaExchange) {
		t.Fatal("it does not leave")
	}
	a.state.Store(leaving)
	l.repeat(a)
	l.putBack(b)
	if l.next() != a {
		t.Fatal("what came back doesn't go first")
	}
	l.putBack(a)
	for _, want := range []*publication{a, b, c} {
		if got := l.next(); got != want {
			t.Fatalf("got %+v, want %s", got, want.msg.MessageId)
		}
	}
}

// Messages are given up one after the other when their context ends. The last of a key must not be sent because it is not given up yet, when those
// before it were: it would be ahead of them for good.
func TestPipeSendsNothingBehindWhatWasGivenUp(t *testing.T) {
	l := testPipe(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	b := &batch{ctx: ctx}
	first, last, other := twoWays("first"), twoWays("last"), twoWays("other")
	first.b, last.b = b, b
	for _, pub := range []*publication{first, last, other} {
		if err := l.p.window.enter(t.Context(), nil, pub.size); err != nil {
			t.Fatal(err)
		}
		l.push(pub)
	}
	cancel()
	first.state.Store(resolved)
	if pub := l.next(); pub != other {
		t.Fatalf("next is %s, want what has another context", pub.msg.MessageId)
	}
	if l.next() != nil || l.p.window.messages != 99 {
		t.Errorf("what was given up keeps its room: %d", l.p.window.messages)
	}
}

func TestReturned(t *testing.T) {
	pub := twoWays("id")
	pub.msg.Body = []byte("body")
	r := amqp091.Return{Exchange: "x", RoutingKey: "t", MessageId: "id", Body: []byte("body")}
	if !pub.returned(&r, "x", "t") {
		t.Error("not known")
	}
	for name, change := range map[string]func(*amqp091.Return){
		"exchange": func(r *amqp091.Return) { r.Exchange = "" },
		"key":      func(r *amqp091.Return) { r.RoutingKey = "u" },
		"id":       func(r *amqp091.Return) { r.MessageId = "" },
		"body":     func(r *amqp091.Return) { r.Body = []byte("bodies") },
	} {
		other := r
		if change(&other); pub.returned(&other, "x", "t") {
			t.Errorf("taken for one of another %s", name)
		}
	}
}

func TestKnownRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := knownRoutes{topics: map[string]known{}}
		s, next := &session{epoch: 1}, &session{epoch: 2}
		pub := twoWays("")
		expect := func(s *session, want routes, when string) {
			t.Helper()
			if got := r.choose(s, pub); got != want {
				t.Errorf("%s: %d, want %d", when, got, want)
			}
		}
		expect(s, viaExchange, "nothing known")
		r.learn(s, "t")
		expect(s, direct, "learnt")
		expect(next, viaExchange, "another session")
		<-time.After(routeMemory) // of the bubble, which has a clock of its own
		expect(s, viaExchange, "some seconds later")
		r.learn(s, "t")
		r.unlearn("t")
		expect(s, viaExchange, "unlearnt")
		r.setMissing(s)
		expect(s, direct, "no exchange")
		pub.via = viaExchange
		expect(s, viaExchange, "the other was tried")
		pub.via = direct
		r.unlearn("t")
		expect(next, direct, "the exchange was tried")
		for i := range routesMax + 1 {
			r.learn(s, string(rune(i)))
		}
		if len(r.topics) > routesMax {
			t.Errorf("%d topics are remembered", len(r.topics))
		}
	})
}
