package memory_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestSettleStale(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 3)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	other := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "other"})
	ds, foreign := receive(t, c, 3), receive(t, other, 1)
	unknown := ds[0].Token
	unknown.Seq += 1 << 40
	ts := []stagebus.Token{ds[0].Token, foreign[0].Token, {}, ds[1].Token, ds[1].Token, unknown}
	for _, v := range []stagebus.Verdict{stagebus.Done, stagebus.Release, stagebus.Retry(0), stagebus.Reject("")} {
		err := c.Settle(within(t), v, ts[1], ts[2], unknown)
		var be *stagebus.BatchError
		if !errors.As(err, &be) || len(be.Errs) != 3 {
			t.Fatalf("%v, want three errors", err)
		}
		for _, err := range be.Errs {
			wantErr(t, err, stagebus.ErrStale)
		}
	}
	var be *stagebus.BatchError
	if err := c.Settle(within(t), stagebus.Done, ts...); !errors.As(err, &be) {
		t.Fatal(err)
	}
	for i, stale := range []bool{false, true, true, false, true, true} {
		if errors.Is(be.Errs[i], stagebus.ErrStale) != stale {
			t.Errorf("token %d: %v", i, be.Errs[i])
		}
	}
	wantErr(t, c.Settle(within(t), stagebus.Verdict{Kind: 9}, ds[2].Token), stagebus.ErrInvalid)
	check(t, c.Settle(within(t), stagebus.Done, ds[2].Token)) // the invalid verdict left it open
	check(t, c.Settle(within(t), stagebus.Done))
	check(t, c.Flush(within(t)))
	check(t, other.Settle(within(t), stagebus.Done, foreign[0].Token))
	if d := depth(t, b, "t", "default"); d != 0 {
		t.Errorf("depth %d", d)
	}
}

// Tokens of several lanes in one call, one after the other.
func TestSettleLanes(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
	keyed(t, b, "t", 2)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	check(t, c.Settle(within(t), stagebus.Done, tokens(receive(t, c, 2))...))
	if n := depth(t, b, "t", "default"); n != 0 {
		t.Errorf("depth %d", n)
	}
}

func TestRelease(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 2)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	ds := receive(t, c, 2)
	for range 3 {
		check(t, c.Settle(within(t), stagebus.Release, ds[0].Token))
		wantErr(t, c.Settle(within(t), stagebus.Done, ds[0].Token), stagebus.ErrStale)
		again := receive(t, c, 1)
		wantBodies(t, again, "0")
		if !again[0].Redelivered || again[0].Attempt != 1 || again[0].Position != ds[0].Position {
			t.Errorf("%+v", again[0])
		}
		ds[0] = again[0]
	}
	check(t, c.Settle(within(t), stagebus.Done, tokens(ds)...))
	nothing(t, c)
	if d := depth(t, b, "t", "default"); d != 0 {
		t.Errorf("depth %d", d)
	}
}

// What was released and not received again doesn't keep Close waiting.
func TestReleaseThenClose(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 2)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Hour})
	ds := receive(t, c, 2)
	check(t, c.Settle(within(t), stagebus.Release, ds[0].Token))
	check(t, c.Settle(within(t), stagebus.Done, ds[1].Token))
	check(t, c.Close(within(t)))
	wantBodies(t, receive(t, consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}}), 2), "0", "1")
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
		sent := stagebus.Message{Topic: "t", Key: []byte("k"), Body: []byte("x"), Headers: stagebus.Headers{{Key: "h", Value: "v"}}, ID: "id", Time: time.Now()}
		send(t, b, sent)
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		other := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "other"})
		check(t, other.Settle(t.Context(), stagebus.Done, receive(t, other, 1)[0].Token))
		d := receive(t, c, 1)[0]
		for i, after := range []time.Duration{0, 1100 * time.Millisecond, time.Hour} {
			start := time.Now()
			check(t, c.Settle(t.Context(), stagebus.Retry(after), d.Token))
			wantErr(t, c.Settle(t.Context(), stagebus.Done, d.Token), stagebus.ErrStale)
			if n := depth(t, b, "t", "default"); n != 1 {
				t.Errorf("depth %d while a retry waits, want 1", n)
			}
			nothing(t, c)
			d = receiveFor(t, c, 24*time.Hour)[0]
			want := []time.Duration{100 * time.Millisecond, 2 * time.Second, time.Hour}[i] // steps of the ladder
			if got := time.Since(start); got != want {
				t.Errorf("retry after %v came after %v, want %v", after, got, want)
			}
			if d.Attempt != i+2 || d.Redelivered || !reflect.DeepEqual(d.Message, sent) {
				t.Errorf("attempt %d: %+v", i+2, d)
			}
		}
		if topic := d.Token.Lane.Info().Topic; topic != "t--default--retry-3600000" || d.Position.Topic != topic {
			t.Errorf("lane of %q, position %+v", topic, d.Position)
		}
		check(t, c.Settle(t.Context(), stagebus.Done, d.Token))
		nothing(t, other)
		if n := depth(t, b, "t", "default"); n != 0 {
			t.Errorf("depth %d after all is settled", n)
		}
		ts, err := b.Admin().List(t.Context())
		check(t, err)
		if len(ts) != 1 {
			t.Errorf("retries show as topics: %+v", ts)
		}
	})
}

// A retry outlives the member that asked for it, and counts for the capacity.
func TestRetrySurvivesAndHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Capacity: 2})
		sendN(t, b, "t", 2)
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		check(t, c.Settle(t.Context(), stagebus.Retry(time.Second), tokens(receive(t, c, 2))...))
		check(t, c.Close(t.Context()))

		p := producer(t, b, stagebus.ProducerOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		wantErr(t, stagebus.Send(ctx, p, stagebus.Message{Topic: "t"}), stagebus.ErrRefused)
		c = consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		ds := receive(t, c, 2)
		wantBodies(t, ds, "0", "1")
		check(t, c.Settle(t.Context(), stagebus.Done, tokens(ds)...))
		check(t, stagebus.Send(t.Context(), p, stagebus.Message{Topic: "t"}))
	})
}

func TestReject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 2})
		sent := stagebus.Message{Topic: "t", Partition: stagebus.At(1), Key: []byte("k"), Body: []byte{0, 255}, ID: "id", Time: time.Now(),
			Headers: stagebus.Headers{{Key: "h", Value: "1"}, {Key: stagebus.HeaderDeadReason, Value: "an earlier one"}, {Key: "h", Value: "\xff"}}}
		send(t, b, stagebus.Message{Topic: "t", Partition: stagebus.At(1)}, sent)
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "g"})
		first := receive(t, c, 2)
		check(t, c.Settle(t.Context(), stagebus.Retry(time.Second), first[1].Token))
		d := receive(t, c, 1)[0]
		at := time.Now()
		check(t, c.Settle(t.Context(), stagebus.Reject(strings.Repeat("é", 1000)), d.Token))
		wantErr(t, c.Settle(t.Context(), stagebus.Done, d.Token), stagebus.ErrStale)

		dlq := stagebus.DeadLetterTopic("t", "g")
		dc := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{dlq}})
		dead := receive(t, dc, 1)[0]
		nothing(t, dc)
		want := sent
		want.Topic, want.Partition = dlq, 0
		want.Headers = stagebus.Headers{
			{Key: "h", Value: "1"}, {Key: "h", Value: "\xff"},
			{Key: stagebus.HeaderDeadReason, Value: strings.Repeat("é", 512)},
			{Key: stagebus.HeaderDeadTopic, Value: "t"},
			{Key: stagebus.HeaderDeadPartition, Value: "1"},
			{Key: stagebus.HeaderDeadOffset, Value: "1"},
			{Key: stagebus.HeaderDeadGroup, Value: "g"},
			{Key: stagebus.HeaderDeadAttempt, Value: "2"},
			{Key: stagebus.HeaderDeadTime, Value: at.UTC().Format(time.RFC3339Nano)},
		}
		if !reflect.DeepEqual(dead.Message, want) || dead.Attempt != 1 {
			t.Errorf("dead letter %+v\nwant %+v", dead, want)
		}
		if !reflect.DeepEqual(d.Headers, sent.Headers) {
			t.Errorf("Reject wrote into the delivery: %v", d.Headers)
		}
		check(t, c.Settle(t.Context(), stagebus.Done, first[0].Token))
		if n := depth(t, b, "t", "g"); n != 0 {
			t.Errorf("depth %d", n)
		}
	})
}

// Reject waits for room among the dead letters; without, the delivery is open as before.
func TestRejectWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dlq := stagebus.DeadLetterTopic("t", "")
		b := newBroker(t, memory.Options{CapacityBytes: 200}, stagebus.TopicSpec{Name: "t"}) // one dead letter
		sendN(t, b, "t", 2)
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Hour})
		ds := receive(t, c, 2)
		check(t, c.Settle(t.Context(), stagebus.Reject("no"), ds[0].Token))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wantErr(t, c.Settle(ctx, stagebus.Reject("no"), ds[1].Token), stagebus.ErrRefused, context.DeadlineExceeded)

		rejected := make(chan error, 1)
		go func() { rejected <- c.Settle(t.Context(), stagebus.Reject("no"), ds[1].Token) }()
		synctest.Wait()
		dc := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{dlq}})
		check(t, dc.Settle(t.Context(), stagebus.Done, receive(t, dc, 1)[0].Token))
		check(t, <-rejected)

		// The lane ends while Reject waits: no copy, and what the same call had rejected before doesn't come again.
		check(t, dc.Settle(t.Context(), stagebus.Done, receiveFor(t, dc, time.Second)[0].Token))
		sendN(t, b, "t", 2)
		ds = receive(t, c, 2)
		go func() { rejected <- c.Settle(t.Context(), stagebus.Reject("no"), tokens(ds)...) }()
		synctest.Wait()
		wantErr(t, c.Close(ended()), context.Canceled)
		check(t, b.Admin().Purge(t.Context(), dlq, ""))
		var be *stagebus.BatchError
		if err := <-rejected; !errors.As(err, &be) || be.Errs[0] != nil {
			t.Fatal(err)
		}
		wantErr(t, be.Errs[1], stagebus.ErrStale)
		if n := depth(t, b, dlq, "default"); n != 0 {
			t.Errorf("%d dead letters", n)
		}
		c = consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
		wantBodies(t, receive(t, c, 1), "1")
	})
}

// A topic whose dead letters would have too long a name: the delivery stays open.
func TestRejectLongName(t *testing.T) {
	long := strings.Repeat("x", 240)
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: long})
	sendN(t, b, long, 1)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{long}})
	d := receive(t, c, 1)[0]
	wantErr(t, c.Settle(within(t), stagebus.Reject("no"), d.Token), stagebus.ErrInvalid)
	check(t, c.Settle(within(t), stagebus.Done, d.Token))
}
