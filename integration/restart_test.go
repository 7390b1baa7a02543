package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/integration/broker"
)

// TestRestarts ends the broker, in order and by SIGKILL in turn, and starts it again while keyed messages flow through the adapter, and counts exactly: everything that was
// acknowledged to a producer is received; a duplicate has a reason; the first deliveries of a key never go backwards within a lane. What the
// broker itself marks as redelivered is no first delivery, also when the first one was lost with the connection.
// STAGEBUS_LONG makes it the full run: 100,000 messages and five restarts.
func TestRestarts(t *testing.T) {
	messages, restarts := 12_000, 2
	if os.Getenv("STAGEBUS_LONG") != "" {
		messages, restarts = 100_000, 5
	}
	for _, kind := range []broker.Kind{broker.Kafka, broker.AMQP} {
		t.Run(string(kind), func(t *testing.T) {
			inst := broker.Private(t, kind)
			flow := newFlow(t, inst.URL(), messages)
			flow.run(t, func(ctx context.Context) {
				for i := range restarts {
					flow.waitAcked(ctx, messages*(i+1)/(restarts+1))
					end := inst.Stop
					if i%2 == 1 {
						end = inst.Kill
					}
					if err := errors.Join(end(ctx), inst.Start(ctx)); err != nil {
						t.Errorf("restart %d: %v", i+1, err)
						return
					}
				}
			})
			flow.report(t)
		})
	}
}

// flow sends messages and receives them with two members of one group, and keeps the books.
type flow struct {
	bus   *stagebus.Broker
	topic string
	total int
	began time.Time

	uncertain atomic.Int64 // outcomes; each was sent again under its ID
	failed    atomic.Int64 // definite failures; each was sent again

	ackedMu sync.Mutex
	acked   int
	more    sync.Cond // of ackedMu: acked has risen

	mu         sync.Mutex      // protects the following
	sent       map[string]bool // ID -> was uncertain at least once
	first      map[string]receipt
	received   int
	duplicates map[string]int // by reason
	order      []string       // violations
	late       int            // first seen behind a later one of their key, and marked as redelivered
	done       chan struct{}  // closed when all are received
	ended      bool
}

type receipt struct {
	position stagebus.Position
	lane     stagebus.Lane
}

const (
	flowWorkers = 4
	flowKeys    = 100 // of each worker: one message of each key is on its way at a time, so that a resend keeps the order
)

func newFlow(t *testing.T, url string, messages int) *flow {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bus, err := adapters.Open(ctx, url, adapters.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &flow{
		bus: bus, topic: "restarts", total: messages / (flowWorkers * flowKeys) * flowWorkers * flowKeys, began: time.Now(),
		sent: map[string]bool{}, first: map[string]receipt{}, duplicates: map[string]int{}, done: make(chan struct{}),
	}
	f.more.L = &f.ackedMu
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := bus.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	spec := stagebus.TopicSpec{Name: f.topic}
	if bus.Capabilities().Partitions {
		spec.Partitions = 4
	}
	if err := bus.Admin().Declare(ctx, spec); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *flow) run(t *testing.T, disturb func(context.Context)) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	p, err := f.bus.Producer(ctx, stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var consumers, producers sync.WaitGroup
	for range 2 {
		c, err := f.bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{f.topic}, Group: "flow"})
		if err != nil {
			t.Fatal(err)
		}
		consumers.Go(func() { f.consume(ctx, t, c) })
	}
	for w := range flowWorkers {
		producers.Go(func() { f.produce(ctx, t, p, w) })
	}
	disturb(ctx)
	producers.Wait()
	select {
	case <-f.done:
	case <-ctx.Done():
		t.Errorf("not everything arrived: %v", context.Cause(ctx))
	}
	cancel()
	consumers.Wait()
}

// produce sends round after round; each has one message of each of the worker's keys and ends when all are acknowledged.
func (f *flow) produce(ctx context.Context, t *testing.T, p stagebus.Producer, worker int) {
	for round := range f.total / (flowWorkers * flowKeys) {
		ms := make([]stagebus.Message, flowKeys)
		for k := range ms {
			key := fmt.Sprintf("w%d-k%d", worker, k)
			ms[k] = stagebus.Message{Topic: f.topic, Key: []byte(key), ID: fmt.Sprintf("%s/%d", key, round), Body: []byte("payload of " + key)}
		}
		f.mu.Lock()
		for i := range ms {
			f.sent[ms[i].ID] = false
		}
		f.mu.Unlock()
		for len(ms) > 0 {
			err := stagebus.Send(ctx, p, ms...)
			if ctx.Err() != nil {
				t.Errorf("worker %d: %v", worker, err)
				return
			}
			again := f.unacknowledged(ms, err)
			f.ackedMu.Lock()
			f.acked += len(ms) - len(again)
			f.more.Broadcast()
			f.ackedMu.Unlock()
			ms = again
		}
	}
}

func (f *flow) unacknowledged(ms []stagebus.Message, err error) []stagebus.Message {
	if err == nil {
		return nil
	}
	var be *stagebus.BatchError
	if !errors.As(err, &be) {
		f.failed.Add(int64(len(ms)))
		return ms
	}
	var again []stagebus.Message
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, err := range be.Failed() {
		again = append(again, ms[i])
		if errors.Is(err, stagebus.ErrUncertain) {
			f.uncertain.Add(1)
			f.sent[ms[i].ID] = true
		} else {
			f.failed.Add(1)
		}
	}
	return again
}

func (f *flow) consume(ctx context.Context, t *testing.T, c stagebus.Consumer) {
	last := map[stagebus.Lane]map[string]int{} // highest round of first deliveries, by lane and key
	dst := make([]stagebus.Delivery, 256)
	tokens := make([]stagebus.Token, 0, len(dst))
	for {
		n, err := c.Receive(ctx, dst)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				t.Errorf("receive: %v", err)
			}
			return
		}
		tokens = tokens[:0]
		f.mu.Lock()
		for i := range dst[:n] {
			f.record(&dst[i], last)
			tokens = append(tokens, dst[i].Token)
		}
		if len(f.first) == f.total && !f.ended {
			f.ended = true
			close(f.done)
		}
		f.mu.Unlock()
		if err := c.Settle(ctx, stagebus.Done, tokens...); err != nil && !errors.Is(err, stagebus.ErrStale) && ctx.Err() == nil {
			t.Errorf("settle: %v", err)
		}
	}
}

// record is called with f.mu held.
func (f *flow) record(d *stagebus.Delivery, last map[stagebus.Lane]map[string]int) {
	f.received++
	wasUncertain, known := f.sent[d.ID]
	switch before, seen := f.first[d.ID]; {
	case !known:
		f.duplicates["never sent"]++
	case !seen:
		f.first[d.ID] = receipt{d.Position, d.Token.Lane}
		key, round := splitID(d.ID)
		if last[d.Token.Lane] == nil {
			last[d.Token.Lane] = map[string]int{}
		}
		switch before, ok := last[d.Token.Lane][key]; {
		case !ok || round > before:
			last[d.Token.Lane][key] = round
		case d.Redelivered:
			f.late++
		default:
			f.order = append(f.order, fmt.Sprintf("key %s: %d after %d", key, round, before))
		}
	case d.Redelivered, before.position.Offset >= 0 && before.position == d.Position:
		f.duplicates["redelivered"]++
	case wasUncertain:
		f.duplicates["uncertain"]++
	default:
		f.duplicates["unexplained"]++
	}
}

func splitID(id string) (key string, round int) {
	key, n, _ := strings.Cut(id, "/")
	round, _ = strconv.Atoi(n)
	return key, round
}

func (f *flow) waitAcked(ctx context.Context, n int) {
	stop := context.AfterFunc(ctx, func() {
		f.ackedMu.Lock()
		defer f.ackedMu.Unlock()
		f.more.Broadcast()
	})
	defer stop()
	f.ackedMu.Lock()
	defer f.ackedMu.Unlock()
	for f.acked < n && ctx.Err() == nil {
		f.more.Wait()
	}
}

func (f *flow) report(t *testing.T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Logf("%d messages acknowledged (%d outcomes uncertain, %d definite failures, each sent again); %d received, %d distinct, duplicates %v, %d redelivered late; %.1f s",
		f.acked, f.uncertain.Load(), f.failed.Load(), f.received, len(f.first), f.duplicates, f.late, time.Since(f.began).Seconds())
	if lost := f.acked - len(f.first); lost != 0 {
		t.Errorf("%d acknowledged messages were lost", lost)
	}
	if n := f.duplicates["unexplained"] + f.duplicates["never sent"]; n != 0 {
		t.Errorf("duplicates without a reason: %v", f.duplicates)
	}
	if len(f.order) > 0 {
		t.Errorf("%d times a key went backwards in a lane, first: %s", len(f.order), f.order[0])
	}
}
