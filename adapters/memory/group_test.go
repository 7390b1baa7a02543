package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// keyed sends one message to each of n partitions, with the partition as its body.
func keyed(t testing.TB, b *stagebus.Broker, topic string, n int) {
	t.Helper()
	for i := range n {
		send(t, b, stagebus.Message{Topic: topic, Partition: stagebus.At(int32(i)), Body: fmt.Append(nil, i)})
	}
}

func TestGroupsGetAllMembersShare(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 4})
	a1 := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "a"})
	a2 := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "a"})
	solo := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "b"})
	keyed(t, b, "t", 4)
	seen := map[string]int{}
	for _, d := range append(receive(t, a1, 2), receive(t, a2, 2)...) {
		seen[string(d.Body)]++
	}
	nothing(t, a1)
	nothing(t, a2)
	if len(seen) != 4 {
		t.Errorf("the members of a received %v", seen)
	}
	receive(t, solo, 4)
	for _, g := range describe(t, b, "t").Groups {
		if want := map[string]int{"a": 2, "b": 1, "default": 0}[g.Name]; g.Members != want || g.Depth != 4 {
			t.Errorf("%+v, want %d members and depth 4", g, want)
		}
	}
}

// More members than partitions: the rest wait, and take over when one leaves.
func TestSpareMember(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	o := stagebus.ConsumerOptions{Topics: []string{"t"}}
	first, spare := consumer(t, b, o), consumer(t, b, o)
	sendN(t, b, "t", 2)
	ds := receive(t, first, 2)
	check(t, first.Settle(within(t), stagebus.Done, ds[0].Token))
	nothing(t, spare)
	check(t, first.Close(within(t)))
	got := receive(t, spare, 1)
	wantBodies(t, got, "1")
	if !got[0].Redelivered {
		t.Error("the second delivery isn't marked")
	}
}

// A member joins: only the lanes that move drain, what is settled in time counts, and the new member starts once they are sealed.
func TestRebalanceDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &events{}
		b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Partitions: 2})
		o := stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Minute}
		first := consumer(t, b, o)
		keyed(t, b, "t", 2)
		ds := receive(t, first, 2)
		second := consumer(t, b, o)
		var moved, stays stagebus.Delivery
		for _, d := range ds {
			select {
			case <-d.Token.Lane.Draining():
				moved = d
			default:
				stays = d
			}
		}
		if moved.Token.Lane == nil || stays.Token.Lane == nil {
			t.Fatal("exactly one of two lanes must move")
		}
		nothing(t, second)
		keyed(t, b, "t", 2)
		wantBodies(t, receive(t, first, 1), string(stays.Body)) // the other lane goes on, the draining one stands
		nothing(t, first)
		check(t, first.Settle(t.Context(), stagebus.Done, moved.Token))
		got := receive(t, second, 1)
		wantBodies(t, got, string(moved.Body))
		if got[0].Redelivered || got[0].Position.Offset != 1 {
			t.Errorf("%+v: settled in time, and still delivered again", got[0])
		}
		if old, now := moved.Token.Lane.Info(), got[0].Token.Lane.Info(); old.Partition != now.Partition || old.Epoch >= now.Epoch || now.Group != "default" || now.Topic != "t" {
			t.Errorf("lanes %+v and %+v", old, now)
		}
		if r := e.wait(t, stagebus.EventRevoked); r.N != moved.Token.Lane.Info().Epoch || r.Partition != moved.Position.Partition {
			t.Errorf("revoked %+v", r)
		}
		check(t, first.Settle(t.Context(), stagebus.Done, stays.Token))
	})
}

// The drain time is over: the lane's context ends, its tokens are stale, and the next member gets the messages, marked.
func TestRebalanceSeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &events{}
		b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t"})
		o := stagebus.ConsumerOptions{Topics: []string{"t"}, Drain: time.Minute}
		first, second := consumer(t, b, o), consumer(t, b, o)
		sendN(t, b, "t", 1)
		ds := receive(t, first, 1)
		start := time.Now()
		got := make(chan []stagebus.Delivery)
		go func() { got <- receiveFor(t, second, time.Hour) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		closed := make(chan error, 1)
		go func() { closed <- first.Close(ctx) }()
		again := <-got
		if d := time.Since(start); d != time.Minute {
			t.Errorf("came again after %v, want the drain time", d)
		}
		wantBodies(t, again, "0")
		if !again[0].Redelivered || again[0].Position != ds[0].Position {
			t.Errorf("%+v", again[0])
		}
		wantErr(t, first.Settle(t.Context(), stagebus.Done, ds[0].Token), stagebus.ErrStale)
		if x := e.wait(t, stagebus.EventStale); x.N != 1 {
			t.Errorf("%+v", x)
		}
		check(t, <-closed)
		cancel()
		check(t, second.Settle(t.Context(), stagebus.Done, again[0].Token))
	})
}

// receiveFor receives one within d of a bubble's time.
func receiveFor(t testing.TB, c stagebus.Consumer, d time.Duration) []stagebus.Delivery {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	ds := make([]stagebus.Delivery, 1)
	if _, err := c.Receive(ctx, ds); err != nil {
		t.Error(err)
	}
	return ds
}

// Members that come and go keep what they have as far as shares allow.
func TestAssignmentIsSticky(t *testing.T) {
	e := &events{}
	b := newBroker(t, memory.Options{Hook: e.hook}, stagebus.TopicSpec{Name: "t", Partitions: 12})
	o := stagebus.ConsumerOptions{Topics: []string{"t"}}
	var cs []stagebus.Consumer
	revoked := func() (n int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, x := range e.all {
			if x.Kind == stagebus.EventRevoked {
				n++
			}
		}
		e.all = nil
		return n
	}
	for i, want := range []int{0, 6, 4, 3} { // the share of each newcomer
		cs = append(cs, consumer(t, b, o))
		if got := revoked(); got != want {
			t.Errorf("member %d joined and %d lanes moved, want %d", i+1, got, want)
		}
	}
	check(t, cs[1].Close(within(t)))
	if got := revoked(); got != 3 {
		t.Errorf("one of 4 left and %d lanes moved, want its 3", got)
	}
	keyed(t, b, "t", 12)
	for _, c := range []stagebus.Consumer{cs[0], cs[2], cs[3]} {
		receive(t, c, 4)
		nothing(t, c)
	}
}

// Groups are of a topic: members may subscribe to different ones.
func TestDifferentSubscriptions(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"}, stagebus.TopicSpec{Name: "u"})
	both := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t", "u"}})
	only := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"u"}})
	sendN(t, b, "t", 1)
	sendN(t, b, "u", 1)
	receive(t, both, 2)
	check(t, both.Close(within(t)))
	if d := receive(t, only, 1); d[0].Topic != "u" {
		t.Errorf("received from %q", d[0].Topic)
	}
	nothing(t, only)
}
