// Package memorytest helps to test programs that use stagebus: put messages in, see what came out, make sending fail. It is written for
// brokers of package memory, where nothing has to be waited for that is not on its way; it works with any [stagebus.Broker] that
// keeps history for a new group.
//
// What the helpers read, they read as the consumer group [Group]: the program under test doesn't miss it, and each helper goes on where
// the one before stopped. Inside a bubble of testing/synctest their patience is of the bubble's time.
package memorytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// Group is the consumer group that the helpers read as.
const Group = "memorytest"

// Patience is how long a helper waits for what must come. A failing test takes that long, a passing one doesn't.
const Patience = 5 * time.Second

// Publish sends one message for each body to a topic, which is made if it is missing. It ends the test if one can't be sent.
func Publish(t testing.TB, b *stagebus.Broker, topic string, bodies ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	ms := make([]stagebus.Message, len(bodies))
	for i, body := range bodies {
		ms[i] = stagebus.Message{Topic: topic, Body: []byte(body)}
	}
	p, err := b.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err == nil {
		err = errors.Join(stagebus.Send(ctx, p, ms...), p.Close(ctx))
	}
	if err != nil {
		t.Fatalf("publish to %q: %v", topic, err)
	}
}

// Expect waits for as many messages of a topic as there are bodies, and returns them. It ends the test if other bodies come, or too few within
// [Patience]. A topic of one partition must bring them in this order, of several in any. That nothing more follows is
// for [Drain] to show.
func Expect(t testing.TB, b *stagebus.Broker, topic string, bodies ...string) []stagebus.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	ms, err := read(ctx, b, topic, func() (int, error) { return len(bodies), nil })
	got := make([]string, len(ms))
	for i := range ms {
		got[i] = string(ms[i].Body)
	}
	if err != nil {
		t.Fatalf("expect %q from %q: received %q, then: %v", bodies, topic, got, err)
	}
	want := slices.Clone(bodies)
	if info, err := b.Admin().Describe(ctx, topic); err != nil {
		t.Fatalf("expect %q from %q: %v", bodies, topic, err)
	} else if len(info.Partitions) > 1 {
		slices.Sort(want)
		slices.Sort(got)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("topic %q: received %q, want %q", topic, got, want)
	}
	return ms
}

// Drain returns what is in a topic now and was not read by a helper before, without waiting for more. A topic that doesn't exist has nothing.
func Drain(t testing.TB, b *stagebus.Broker, topic string) []stagebus.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if _, err := b.Admin().Describe(ctx, topic); errors.Is(err, stagebus.ErrNotFound) {
		return nil
	}
	ms, err := read(ctx, b, topic, func() (int, error) {
		info, err := b.Admin().Describe(ctx, topic)
		for _, g := range info.Groups {
			if g.Name == Group {
				return int(g.Depth), err
			}
		}
		return 0, err
	})
	if err != nil {
		t.Fatalf("drain %q: %v", topic, err)
	}
	return ms
}

// read receives and settles as many messages as count says once the consumer is open.
func read(ctx context.Context, b *stagebus.Broker, topic string, count func() (int, error)) (ms []stagebus.Message, err error) {
	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{topic}, Group: Group, Create: true, Drain: time.Millisecond})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	n, err := count()
	if err != nil {
		return nil, err
	}
	var d [1]stagebus.Delivery
	for len(ms) < n {
		if _, err := c.Receive(ctx, d[:]); err != nil {
			return ms, err
		}
		if d[0].Err != nil {
			return ms, fmt.Errorf("the message at %v can't be read: %w", d[0].Position, d[0].Err)
		}
		if err := c.Settle(ctx, stagebus.Done, d[0].Token); err != nil {
			return ms, err
		}
		ms = append(ms, d[0].Message)
	}
	return ms, nil
}
