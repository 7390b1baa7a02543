package memory_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestConsumeMissing(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
	_, err := b.Consumer(within(t), stagebus.ConsumerOptions{Topics: []string{"t", "u"}})
	wantErr(t, err, stagebus.ErrNotFound)
	if gs := describe(t, b, "t").Groups; gs[0].Members != 0 {
		t.Errorf("a consumer that failed to open is a member: %+v", gs)
	}
	_, err = b.Consumer(within(t), stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Assigned, Partitions: []int32{2}})
	wantErr(t, err, stagebus.ErrNotFound)
	_, err = b.Consumer(within(t), stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Ephemeral, Start: stagebus.Start{Kind: stagebus.StartEarliest}})
	wantErr(t, err, stagebus.ErrInvalid)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t", "u"}, Create: true})
	sendN(t, b, "u", 1)
	wantBodies(t, receive(t, c, 1), "0")
}

func TestModesAndStarts(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 3)
	topics := []string{"t"}
	open := func(o stagebus.ConsumerOptions) stagebus.Consumer { o.Topics = topics; return consumer(t, b, o) }
	earliest := open(stagebus.ConsumerOptions{Group: "earliest"})
	latest := open(stagebus.ConsumerOptions{Group: "latest", Start: stagebus.Start{Kind: stagebus.StartLatest}})
	from1 := open(stagebus.ConsumerOptions{Group: "from1", Start: stagebus.Start{Kind: stagebus.StartOffset, Offset: 1}})
	ephemeral := open(stagebus.ConsumerOptions{Mode: stagebus.Ephemeral})
	assigned := open(stagebus.ConsumerOptions{Mode: stagebus.Assigned, Partitions: []int32{0}})
	send(t, b, stagebus.Message{Topic: "t", Body: []byte("new")})
	wantBodies(t, receive(t, earliest, 4), "0", "1", "2", "new")
	wantBodies(t, receive(t, latest, 1), "new")
	wantBodies(t, receive(t, from1, 3), "1", "2", "new")
	wantBodies(t, receive(t, ephemeral, 1), "new")
	ds := receive(t, assigned, 4)
	wantBodies(t, ds, "0", "1", "2", "new")

	// Settling commits nothing for Assigned; Start is for groups without a position only.
	check(t, assigned.Settle(within(t), stagebus.Done, tokens(ds)...))
	check(t, assigned.Close(within(t)))
	wantBodies(t, receive(t, open(stagebus.ConsumerOptions{Mode: stagebus.Assigned}), 4), "0", "1", "2", "new")
	check(t, latest.Close(within(t)))
	wantBodies(t, receive(t, open(stagebus.ConsumerOptions{Group: "latest"}), 1), "new")
	for _, g := range describe(t, b, "t").Groups {
		if g.Name == "" {
			t.Errorf("a private group is shown: %+v", g)
		}
	}
}

func TestAssignedPartition(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 3})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Assigned, Partitions: []int32{1}})
	for n := range int32(3) {
		send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(n), Body: fmt.Append(nil, n)})
	}
	ds := receive(t, c, 1)
	wantBodies(t, ds, "1")
	if ds[0].Position != (stagebus.Position{Topic: "t", Partition: 1}) || ds[0].Partition != 0 {
		t.Errorf("at %+v, pinned to %v", ds[0].Position, ds[0].Partition)
	}
	nothing(t, c)
}

func TestPrefetch(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 5)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Prefetch: 2})
	ds := receive(t, c, 2)
	nothing(t, c)
	check(t, c.Settle(within(t), stagebus.Done, ds[1].Token)) // out of order: it counts all the same
	wantBodies(t, receive(t, c, 1), "2")
	nothing(t, c)
	check(t, c.Settle(within(t), stagebus.Release, ds[0].Token))
	wantBodies(t, receive(t, c, 1), "0")
	nothing(t, c)
}

func TestPrefetchBytes(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
	big, small := make([]byte, 100), make([]byte, 10)
	for range 2 {
		send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(0), Body: big}, stagebus.Message{Topic: "t", Partition: stagebus.At(1), Body: small})
	}
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, PrefetchBytes: 50})
	dst := make([]stagebus.Delivery, 10)
	var sizes []int
	for range 4 { // each waits for the one before, the big ones are not passed over for ever
		n, err := c.Receive(within(t), dst)
		check(t, err)
		for _, d := range dst[:n] {
			sizes = append(sizes, len(d.Body))
		}
		if sizes[len(sizes)-1] == 100 {
			nothing(t, c)
		}
		check(t, c.Settle(within(t), stagebus.Done, tokens(dst[:n])...))
		if len(sizes) == 4 {
			break
		}
	}
	slices.Sort(sizes)
	if !slices.Equal(sizes, []int{10, 10, 100, 100}) {
		t.Errorf("received %v", sizes)
	}
}

// A message that doesn't fit waits for its turn: small ones of other lanes don't pass it for ever. What was released and came again
// counts as before.
func TestPrefetchBytesTurn(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, PrefetchBytes: 50})
	for range 3 {
		send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(1), Body: make([]byte, 10)})
	}
	small := receive(t, c, 1)
	for range 10 {
		check(t, c.Settle(within(t), stagebus.Release, small[0].Token))
		small = receive(t, c, 1)
	}
	send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(0), Body: make([]byte, 45)})
	for range 4 { // whichever lane has the turn, the large one gets it in the end
		var dst [1]stagebus.Delivery
		n, err := c.Receive(newLastLook(t), dst[:])
		if err == nil && len(dst[0].Body) == 45 {
			t.Fatal("55 bytes are held")
		}
		small = append(small, dst[:n]...)
	}
	if len(small) > 2 {
		t.Fatalf("%d small messages passed the large one", len(small))
	}
	check(t, c.Settle(within(t), stagebus.Done, tokens(small)...))
	if d := receive(t, c, 1); len(d[0].Body) != 45 {
		t.Errorf("received %d bytes", len(d[0].Body))
	}
}

// No lane starves while another always has messages.
func TestLanesTakeTurns(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 3})
	for n := range int32(3) {
		for range 10 {
			send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(n)})
		}
	}
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	seen := map[int32]bool{}
	for range 3 {
		seen[receive(t, c, 1)[0].Position.Partition] = true
	}
	if len(seen) != 3 {
		t.Errorf("three receives saw partitions %v", seen)
	}
}

// Two goroutines that wait on one consumer both wake up.
func TestConcurrentReceive(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	got := make(chan string)
	for range 2 {
		go func() {
			dst := make([]stagebus.Delivery, 1)
			if _, err := c.Receive(within(t), dst); err != nil {
				t.Error(err)
			}
			got <- string(dst[0].Body)
		}()
	}
	sendN(t, b, "t", 2)
	if a, b := <-got, <-got; a == b {
		t.Errorf("both received %q", a)
	}
}

func TestCancelReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() { _, err := c.Receive(ctx, make([]stagebus.Delivery, 1)); got <- err }()
		synctest.Wait() // until it waits
		cancel()
		wantErr(t, <-got, context.Canceled)
		sendN(t, b, "t", 1)
		wantBodies(t, receive(t, c, 1), "0")
	})
}

// Close gives back what is open, beginning at the first that isn't settled, and marks what had been delivered.
func TestCloseGivesBack(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 5)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Nanosecond})
	ds := receive(t, c, 3)
	check(t, c.Settle(within(t), stagebus.Done, ds[0].Token))
	check(t, c.Close(within(t)))
	check(t, c.Close(within(t)))
	_, err := c.Receive(within(t), ds)
	wantErr(t, err, io.EOF)
	wantErr(t, c.Settle(within(t), stagebus.Done, ds[1].Token), stagebus.ErrStale)

	next := receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}}), 4)
	wantBodies(t, next, "1", "2", "3", "4")
	for i, d := range next {
		if d.Redelivered != (i < 2) || d.Attempt != 1 {
			t.Errorf("%q: redelivered %v, attempt %d", d.Body, d.Redelivered, d.Attempt)
		}
	}
}

// Close drains: Receive ends at once, Draining is closed, and what is settled in time counts.
func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
		sendN(t, b, "t", 2)
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Minute})
		ds := receive(t, c, 2)
		lane := ds[0].Token.Lane
		closed := make(chan error, 1)
		waiting := make(chan error, 1)
		go func() { _, err := c.Receive(context.Background(), make([]stagebus.Delivery, 1)); waiting <- err }()
		synctest.Wait()
		go func() { closed <- c.Close(context.Background()) }()
		<-lane.Draining()
		synctest.Wait()
		select {
		case err := <-waiting:
			wantErr(t, err, io.EOF)
		default:
			t.Error("Receive still waits")
		}
		_, err := c.Receive(context.Background(), make([]stagebus.Delivery, 1))
		wantErr(t, err, io.EOF)
		check(t, c.Settle(context.Background(), stagebus.Done, ds[0].Token))
		synctest.Wait()
		if lane.Context().Err() != nil {
			t.Error("the lane's context has ended while it drains")
		}
		start := time.Now()
		<-lane.Context().Done() // the drain time is over
		if d := time.Since(start); d != time.Minute {
			t.Errorf("drained for %v", d)
		}
		wantErr(t, context.Cause(lane.Context()), stagebus.ErrStale)
		check(t, <-closed)
		wantErr(t, c.Settle(context.Background(), stagebus.Done, ds[1].Token), stagebus.ErrStale)
		wantBodies(t, receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}}), 1), "1")

		// What is settled last ends the wait.
		c = consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "g", Drain: time.Hour})
		ds = receive(t, c, 2)
		go func() { closed <- c.Close(context.Background()) }()
		<-ds[0].Token.Lane.Draining()
		check(t, c.Settle(context.Background(), stagebus.Done, tokens(ds)...))
		start = time.Now()
		check(t, <-closed)
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v after the last settlement", d)
		}
	})
}

func TestCloseWithinContext(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 1)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Hour})
	ds := receive(t, c, 1)
	wantErr(t, c.Close(ended()), context.Canceled)
	wantErr(t, c.Settle(within(t), stagebus.Done, ds[0].Token), stagebus.ErrStale)
	wantBodies(t, receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}}), 1), "0")
}

func TestDeletedUnderConsumer(t *testing.T) {
	e := &events{}
	b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t"}, stagebus.TopicSpec{Name: "u"})
	sendN(t, b, "t", 1)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t", "u"}})
	reply := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Mode: stagebus.Ephemeral})
	old := receive(t, c, 1)
	check(t, b.Admin().Delete(within(t), "t"))
	if x := e.wait(t, stagebus.EventMissing); x.Topic != "t" || x.Broker != "memory://" {
		t.Errorf("%+v", x)
	}
	wantErr(t, c.Settle(within(t), stagebus.Done, old[0].Token), stagebus.ErrStale)
	<-old[0].Token.Lane.Context().Done()
	nothing(t, c)
	sendN(t, b, "u", 1)
	wantBodies(t, receive(t, c, 1), "0") // the other topic goes on

	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "t"}))
	send(t, b, stagebus.Message{Topic: "t", Body: []byte("again")})
	ds := receive(t, c, 1)
	wantBodies(t, ds, "again")
	if ds[0].Redelivered {
		t.Error("a new topic's message is marked")
	}
	wantBodies(t, receive(t, reply, 1), "again")
	check(t, b.Admin().Delete(within(t), "t"))
	check(t, reply.Close(within(t)))
	check(t, c.Close(within(t)))
}
