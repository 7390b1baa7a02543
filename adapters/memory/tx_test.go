package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// newTx opens a transaction from topic in to topic out, with two messages in the former.
func newTx(t testing.TB, out stagebus.TopicSpec, o stagebus.ConsumerOptions) (*stagebus.Broker, stagebus.Tx) {
	t.Helper()
	out.Name = "out"
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "in"}, out)
	sendN(t, b, "in", 2)
	o.Topics = []string{"in"}
	if o.Drain == 0 {
		o.Drain = time.Nanosecond
	}
	tx, err := b.Tx(within(t), stagebus.ProducerOptions{}, o)
	check(t, err)
	return b, tx
}

func TestTxCommit(t *testing.T) {
	b, tx := newTx(t, stagebus.TopicSpec{Partitions: 2}, stagebus.ConsumerOptions{})
	reader := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"out"}})
	ds := receive(t, tx.Consumer(), 2)
	check(t, tx.Consumer().Settle(within(t), stagebus.Done, tokens(ds)...))
	wantErr(t, tx.Consumer().Settle(within(t), stagebus.Done, ds[0].Token), stagebus.ErrStale)
	body := []byte("x")
	var pos stagebus.Position
	check(t, tx.Producer().Submit(within(t), []stagebus.Message{{Topic: "out", Partition: stagebus.At(1), Body: body}},
		func(os []stagebus.Outcome) { pos = os[0].Position }))
	body[0] = 'y' // the outcome is known: the bytes are the sender's again
	if pos != (stagebus.Position{Topic: "out", Partition: 1, Offset: -1}) {
		t.Errorf("outcome at %+v", pos)
	}
	nothing(t, reader)
	if n := depth(t, b, "in", "default"); n != 2 {
		t.Errorf("depth %d before Commit", n)
	}
	check(t, tx.Commit(within(t)))
	wantBodies(t, receive(t, reader, 1), "x")
	if n := depth(t, b, "in", "default"); n != 0 {
		t.Errorf("depth %d after Commit", n)
	}
	check(t, tx.Commit(within(t))) // an empty one
	check(t, tx.Close(within(t)))
	check(t, tx.Close(within(t)))
	nothing(t, reader)
}

func TestTxAbortAndClose(t *testing.T) {
	for _, end := range []string{"abort", "close", "consumer"} {
		b, tx := newTx(t, stagebus.TopicSpec{}, stagebus.ConsumerOptions{Drain: time.Hour})
		ds := receive(t, tx.Consumer(), 2)
		check(t, tx.Consumer().Settle(within(t), stagebus.Done, tokens(ds)...))
		check(t, stagebus.Send(within(t), tx.Producer(), stagebus.Message{Topic: "out"}))
		c := tx.Consumer()
		switch end {
		case "abort":
			check(t, tx.Abort(within(t)))
		case "close":
			check(t, tx.Close(within(t)))
		case "consumer":
			check(t, tx.Consumer().Close(within(t)))
		}
		if end != "abort" {
			c = consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"in"}})
		}
		again := receive(t, c, 2)
		wantBodies(t, again, "0", "1")
		if !again[0].Redelivered {
			t.Errorf("%s: not marked", end)
		}
		check(t, c.Settle(within(t), stagebus.Done, tokens(again)...))
		if end == "abort" {
			check(t, tx.Commit(within(t)))
			check(t, tx.Close(within(t)))
		}
		if n := describe(t, b, "out").Partitions[0].Next; n != 0 {
			t.Errorf("%s: %d outputs of an aborted transaction", end, n)
		}
	}
}

// The input's lane ends before Commit: nothing becomes visible, and Abort gives back.
func TestTxStale(t *testing.T) {
	b, tx := newTx(t, stagebus.TopicSpec{}, stagebus.ConsumerOptions{})
	ds := receive(t, tx.Consumer(), 1)
	check(t, tx.Consumer().Settle(within(t), stagebus.Done, ds[0].Token))
	check(t, stagebus.Send(within(t), tx.Producer(), stagebus.Message{Topic: "out"}))
	check(t, b.Admin().Purge(within(t), "in", ""))
	wantErr(t, tx.Commit(within(t)), stagebus.ErrStale)
	wantErr(t, tx.Commit(within(t)), stagebus.ErrStale)
	if n := describe(t, b, "out").Partitions[0].Next; n != 0 {
		t.Errorf("%d outputs", n)
	}
	check(t, tx.Abort(within(t)))
	check(t, tx.Commit(within(t)))
	check(t, tx.Close(within(t)))
}

func TestTxOtherVerdicts(t *testing.T) {
	b, tx := newTx(t, stagebus.TopicSpec{}, stagebus.ConsumerOptions{})
	c := tx.Consumer()
	ds := receive(t, c, 2)
	check(t, c.Settle(within(t), stagebus.Release, ds[0].Token))
	check(t, c.Settle(within(t), stagebus.Reject("no"), ds[1].Token))
	wantBodies(t, receive(t, c, 1), "0")
	check(t, c.Flush(within(t)))
	check(t, tx.Abort(within(t)))
	if n := depth(t, b, stagebus.DeadLetterTopic("in", ""), "default"); n != 1 {
		t.Errorf("%d dead letters, want the one that was made at once", n)
	}
	wantErr(t, c.Settle(within(t), stagebus.Done, stagebus.Token{}), stagebus.ErrStale)
	check(t, tx.Close(context.Background()))
}

func TestTxRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tx := newTx(t, stagebus.TopicSpec{Capacity: 2}, stagebus.ConsumerOptions{})
		sendN(t, b, "out", 1)
		out := stagebus.Message{Topic: "out", Body: []byte("x")}
		var be *stagebus.BatchError
		err := stagebus.Send(t.Context(), tx.Producer(), out, out, out, stagebus.Message{Topic: "missing"}, stagebus.Message{Topic: "out", Partition: stagebus.At(1)})
		if !errors.As(err, &be) || be.Errs[0] != nil || be.Errs[1] != nil {
			t.Fatal(err)
		}
		wantErr(t, be.Errs[2], stagebus.ErrRefused) // larger than the topic
		wantErr(t, be.Errs[3], stagebus.ErrNoRoute)
		if be.Errs[4] == nil {
			t.Error("a partition that doesn't exist was accepted")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wantErr(t, tx.Commit(ctx), stagebus.ErrRefused, context.DeadlineExceeded)
		if n := describe(t, b, "out").Partitions[0].Next; n != 1 {
			t.Errorf("half a transaction: %d", n)
		}
		committed := make(chan error, 1)
		go func() { committed <- tx.Commit(t.Context()) }()
		synctest.Wait()
		c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"out"}})
		check(t, c.Settle(t.Context(), stagebus.Done, receive(t, c, 1)[0].Token))
		check(t, <-committed)
		wantBodies(t, receive(t, c, 2), "x", "x")
		check(t, tx.Close(t.Context()))
	})
}

func TestTxTopicChanges(t *testing.T) {
	b, tx := newTx(t, stagebus.TopicSpec{Partitions: 2}, stagebus.ConsumerOptions{})
	check(t, stagebus.Send(within(t), tx.Producer(), stagebus.Message{Topic: "out", Partition: stagebus.At(1)}))
	check(t, b.Admin().Delete(within(t), "out"))
	wantErr(t, tx.Commit(within(t)), stagebus.ErrNoRoute)
	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "out"}))
	wantErr(t, tx.Commit(within(t)), stagebus.ErrNotFound)
	check(t, tx.Producer().Close(within(t)))
	wantErr(t, stagebus.Send(within(t), tx.Producer(), stagebus.Message{Topic: "out"}), stagebus.ErrClosed)
	check(t, tx.Close(within(t)))
	_, err := b.Tx(within(t), stagebus.ProducerOptions{}, stagebus.ConsumerOptions{Topics: []string{"missing"}})
	wantErr(t, err, stagebus.ErrNotFound)
}
