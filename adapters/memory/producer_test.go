package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestNoRoute(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
	p := producer(t, b, stagebus.ProducerOptions{})
	err := stagebus.Send(within(t), p,
		stagebus.Message{Topic: "t"},
		stagebus.Message{Topic: "missing"},
		stagebus.Message{Topic: "t", Partition: stagebus.At(2)},
		stagebus.Message{Topic: "t", Partition: stagebus.At(1)})
	var be *stagebus.BatchError
	if !errors.As(err, &be) || be.Errs[0] != nil || be.Errs[3] != nil {
		t.Fatalf("%v, want a BatchError for the second and the third", err)
	}
	wantErr(t, be.Errs[1], stagebus.ErrNoRoute)
	wantErr(t, be.Errs[2], stagebus.ErrNotFound)
	if ps := describe(t, b, "t").Partitions; ps[0].Next != 1 || ps[1].Next != 1 {
		t.Errorf("%+v, want one message each", ps)
	}
	create := producer(t, b, stagebus.ProducerOptions{Create: true})
	check(t, stagebus.Send(within(t), create, stagebus.Message{Topic: "missing", Body: []byte("x")}))
	wantBodies(t, receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"missing"}}), 1), "x")
}

func TestRawNames(t *testing.T) {
	b := newBroker(t, memory.Options{})
	p := producer(t, b, stagebus.ProducerOptions{Create: true})
	for _, name := range []string{"queue:any name", "topic:x", "x"} {
		check(t, stagebus.Send(within(t), p, stagebus.Message{Topic: name, Body: []byte(name)}))
		wantBodies(t, receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{name}}), 1), name)
	}
}

func TestPartitioning(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 4})
	p := producer(t, b, stagebus.ProducerOptions{})
	submit := func(m stagebus.Message) int32 {
		m.Topic = "t"
		var at int32
		check(t, p.Submit(within(t), []stagebus.Message{m}, func(os []stagebus.Outcome) { at = os[0].Position.Partition }))
		return at
	}
	seen := map[int32]bool{}
	for range 4 {
		seen[submit(stagebus.Message{})] = true
	}
	if len(seen) != 4 {
		t.Errorf("messages without a key went to %v, want each partition in turn", seen)
	}
	// As Kafka's Java client: the hash modulo 4, see TestMurmur2 for the hashes.
	for key, want := range map[string]int32{"21": -973932308 & 3, "foobar": -790332482 & 3, "abc": 479470107 & 3, "": 275646681 & 3} {
		if got := submit(stagebus.Message{Key: []byte(key)}); got != want {
			t.Errorf("key %q went to partition %d, want %d", key, got, want)
		}
	}
	if got := submit(stagebus.Message{Key: []byte("foobar"), Partition: stagebus.At(3)}); got != 3 {
		t.Errorf("pinned to 3, went to %d", got)
	}
}

// Submit waits while the slowest group holds the capacity, and goes on as soon as it settles.
func TestCapacity(t *testing.T) {
	e := &events{}
	b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Capacity: 3, Groups: []string{"slow"}})
	fast := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "fast"})
	slow := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "slow"})
	sendN(t, b, "t", 3)
	check(t, fast.Settle(within(t), stagebus.Done, tokens(receive(t, fast, 3))...))

	p := producer(t, b, stagebus.ProducerOptions{})
	sent := make(chan error, 1)
	go func() { sent <- stagebus.Send(within(t), p, stagebus.Message{Topic: "t", Body: []byte("3")}) }()
	e.wait(t, stagebus.EventBlocked)
	check(t, slow.Settle(within(t), stagebus.Done, receive(t, slow, 3)[0].Token))
	check(t, <-sent)
	e.wait(t, stagebus.EventUnblocked)
	if i := describe(t, b, "t").Partitions[0]; i.First != 1 || i.Next != 4 {
		t.Errorf("the log is %+v, want the settled message gone for the new one", i)
	}
	wantBodies(t, receive(t, slow, 1), "3")
}

func TestCapacityBytes(t *testing.T) {
	b := newBroker(t, memory.Options{CapacityBytes: 100}, stagebus.TopicSpec{Name: "t"})
	p := producer(t, b, stagebus.ProducerOptions{})
	big := stagebus.Message{Topic: "t", Body: make([]byte, 200)}
	check(t, stagebus.Send(within(t), p, big)) // at least one
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := newBroker(t, memory.Options{CapacityBytes: 100}, stagebus.TopicSpec{Name: "t"})
		p := producer(t, b, stagebus.ProducerOptions{})
		check(t, stagebus.Send(ctx, p, stagebus.Message{Topic: "t", Body: make([]byte, 60)}))
		wantErr(t, stagebus.Send(ctx, p, stagebus.Message{Topic: "t", Body: make([]byte, 60)}), stagebus.ErrRefused, context.DeadlineExceeded)
	})
}

// What is settled stays for replay while there is room, by number and by bytes.
func TestRetention(t *testing.T) {
	b := newBroker(t, memory.Options{CapacityBytes: 100}, stagebus.TopicSpec{Name: "t", Capacity: 5})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	for i, step := range []struct {
		size  int
		first int64
	}{{10, 0}, {10, 0}, {10, 0}, {10, 0}, {10, 0}, {10, 1}, {70, 3}, {1, 4}, {99, 7}} {
		send(t, b, stagebus.Message{Topic: "t", Body: make([]byte, step.size)})
		check(t, c.Settle(within(t), stagebus.Done, receive(t, c, 1)[0].Token))
		if p := describe(t, b, "t").Partitions[0]; p.First != step.first || p.Next != int64(i+1) {
			t.Errorf("after %d messages the log is %+v, want it to begin at %d", i+1, p, step.first)
		}
	}
	replay := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Assigned})
	for _, d := range receive(t, replay, 2) {
		if want := map[int64]int{7: 1, 8: 99}[d.Position.Offset]; len(d.Body) != want {
			t.Errorf("offset %d has %d bytes, want %d", d.Position.Offset, len(d.Body), want)
		}
	}
}

// A batch larger than the capacity: what has room is sent, the rest definitely not, in order.
func TestFullUntilDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Capacity: 2}, stagebus.TopicSpec{Name: "u"})
		p := producer(t, b, stagebus.ProducerOptions{Timeout: time.Minute})
		start := time.Now()
		var ms []stagebus.Message
		for _, topic := range []string{"t", "t", "t", "u"} {
			ms = append(ms, stagebus.Message{Topic: topic})
		}
		var be *stagebus.BatchError
		if err := stagebus.Send(context.Background(), p, ms...); !errors.As(err, &be) {
			t.Fatalf("%v, want a BatchError", err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("waited %v, want the delivery time-out", d)
		}
		for i, err := range be.Errs {
			if i < 2 {
				check(t, err)
				continue
			}
			wantErr(t, err, stagebus.ErrRefused, context.DeadlineExceeded)
			if errors.Is(err, stagebus.ErrUncertain) {
				t.Errorf("%v: it definitely isn't there", err)
			}
		}
		if n := describe(t, b, "t").Partitions[0].Next; n != 2 {
			t.Errorf("the log has %d messages, want 2", n)
		}
	})
}

func TestDeletedWhileWaiting(t *testing.T) {
	e := &events{}
	b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Capacity: 1})
	sendN(t, b, "t", 1)
	p := producer(t, b, stagebus.ProducerOptions{})
	sent := make(chan error, 1)
	go func() {
		sent <- stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}, stagebus.Message{Topic: "t"})
	}()
	e.wait(t, stagebus.EventBlocked)
	check(t, b.Admin().Delete(within(t), "t"))
	wantErr(t, <-sent, stagebus.ErrNoRoute)
}

// A reader that leaves holds nothing any more, and what it had settled isn't held again.
func TestReaderLeaves(t *testing.T) {
	for _, mode := range []stagebus.Mode{stagebus.Ephemeral, stagebus.Assigned} {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Capacity: 4})
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: mode})
		sendN(t, b, "t", 4)
		check(t, c.Settle(within(t), stagebus.Done, tokens(receive(t, c, 4))[:3]...))
		check(t, c.Close(within(t)))
		sendN(t, b, "t", 3) // the fourth has never been settled
		if i := describe(t, b, "t").Partitions[0]; i.First != 3 || i.Next != 7 {
			t.Errorf("mode %d: the log is %+v, want 3 to 7", mode, i)
		}
	}
}

// A Submit that waits for a reader goes on when that leaves, as far as others have settled.
func TestReaderLeavesWaiting(t *testing.T) {
	e := &events{}
	b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Capacity: 2})
	tail := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Ephemeral})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	sendN(t, b, "t", 2)
	check(t, c.Settle(within(t), stagebus.Done, tokens(receive(t, c, 2))...))
	p := producer(t, b, stagebus.ProducerOptions{})
	sent := make(chan error, 1)
	go func() { sent <- stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}) }()
	e.wait(t, stagebus.EventBlocked)
	check(t, tail.Close(within(t)))
	check(t, <-sent)
}

func TestProducerClose(t *testing.T) {
	for _, patient := range []bool{true, false} {
		e := &events{}
		b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Capacity: 1})
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		sendN(t, b, "t", 1)
		p := producer(t, b, stagebus.ProducerOptions{})
		sent := make(chan error, 1)
		go func() { sent <- stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}) }()
		e.wait(t, stagebus.EventBlocked)
		if !patient {
			wantErr(t, p.Close(ended()), context.Canceled)
			wantErr(t, <-sent, stagebus.ErrClosed)
			continue
		}
		closed := make(chan error, 1)
		go func() { closed <- p.Close(within(t)) }()
		check(t, c.Settle(within(t), stagebus.Done, receive(t, c, 1)[0].Token))
		check(t, <-closed)
		if err := <-sent; err != nil {
			// Close may have won against the Submit only before it began, which EventBlocked rules out.
			t.Errorf("a message accepted before Close: %v", err)
		}
		wantErr(t, stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}), stagebus.ErrClosed)
	}
}

func TestSubmitFromDone(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	p := producer(t, b, stagebus.ProducerOptions{})
	check(t, p.Submit(within(t), []stagebus.Message{{Topic: "t"}}, func([]stagebus.Outcome) {
		check(t, stagebus.Send(within(t), p, stagebus.Message{Topic: "t"}))
	}))
	if n := describe(t, b, "t").Partitions[0].Next; n != 2 {
		t.Errorf("the log has %d messages, want 2", n)
	}
}

// Several producers, a small topic and members that come and go: every message is delivered, in the order of its key, and without a rebalance
// with open deliveries none twice.
func TestConcurrent(t *testing.T) {
	const producers, each, members = 4, 2000, 3
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Capacity: 500, Partitions: 4})
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var mu sync.Mutex
	got := map[string]int{} // next number of each key
	total := 0
	var consuming, producing sync.WaitGroup
	for range members {
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Prefetch: 64, Drain: time.Minute})
		consuming.Go(func() {
			dst := make([]stagebus.Delivery, 50)
			for {
				n, err := c.Receive(ctx, dst)
				if err != nil {
					return
				}
				mu.Lock()
				for _, d := range dst[:n] {
					if want := fmt.Sprint(got[string(d.Key)]); string(d.Body) != want || d.Redelivered {
						t.Errorf("key %s: got %s, want %s (redelivered %v)", d.Key, d.Body, want, d.Redelivered)
					}
					got[string(d.Key)]++
				}
				if total += n; total == producers*each {
					stop()
				}
				mu.Unlock()
				if err := c.Settle(context.Background(), stagebus.Done, tokens(dst[:n])...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range producers {
		p := producer(t, b, stagebus.ProducerOptions{})
		producing.Go(func() {
			for n := 0; n < each; n += 20 {
				var ms []stagebus.Message
				for k := range 20 {
					ms = append(ms, stagebus.Message{Topic: "t", Key: fmt.Append(nil, i), Body: fmt.Append(nil, n+k)})
				}
				if err := stagebus.Send(within(t), p, ms...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	producing.Wait()
	consuming.Wait()
	if total != producers*each {
		t.Errorf("received %d, want %d", total, producers*each)
	}
	if d := depth(t, b, "t", stagebus.DefaultGroup); d != 0 {
		t.Errorf("depth %d after all is settled", d)
	}
}
