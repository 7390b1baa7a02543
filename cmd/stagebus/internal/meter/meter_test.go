package meter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
)

func open(t *testing.T, m *meter.Meter) *stagebus.Broker {
	t.Helper()
	stack, err := stagebus.NewStack(m.Middleware())
	if err != nil {
		t.Fatal(err)
	}
	b := memory.New(memory.Options{Stack: stack})
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestCountsWhatPasses(t *testing.T) {
	ctx := t.Context()
	m := meter.New()
	b := open(t, m)
	p, err := b.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	ms := make([]stagebus.Message, 6)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: "t", Body: []byte("12345"), Key: []byte("k"), Time: time.Now().Add(-time.Second)}
	}
	ms[5].Topic, ms[5].Time = "u", time.Time{}
	if err := stagebus.Send(ctx, p, ms...); err != nil {
		t.Fatal(err)
	}
	if err := stagebus.Send(ctx, p, stagebus.Message{Topic: "t", Priority: 200, Headers: stagebus.Headers{{Key: "ce_id"}}}); !errors.Is(err, stagebus.ErrInvalid) {
		t.Fatal(err)
	}
	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []stagebus.Delivery
	for dst := make([]stagebus.Delivery, 8); len(got) < 5; {
		n, err := c.Receive(ctx, dst)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, dst[:n]...)
	}
	for i, v := range []stagebus.Verdict{stagebus.Done, stagebus.Done, stagebus.Retry(time.Hour), stagebus.Reject("no")} {
		if err := c.Settle(ctx, v, got[i].Token); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Settle(ctx, stagebus.Done, got[0].Token, got[4].Token); !errors.Is(err, stagebus.ErrStale) {
		t.Fatal(err)
	}

	topics := m.Topics()
	if len(topics) != 2 {
		t.Fatalf("%+v", topics)
	}
	l := topics[0].Latency
	if l.Count != 5 || l.P50 < time.Second || l.P99 > time.Minute || l.Max < l.P50 {
		t.Errorf("%+v", l)
	}
	topics[0].Latency = meter.Latency{}
	want := []meter.Topic{
		{Name: "t", Sent: 5, SentBytes: 30, SendFailed: 1, Received: 5, ReceivedBytes: 30, Done: 3, Retried: 1, Rejected: 1},
		{Name: "u", Sent: 1, SentBytes: 6},
	}
	for i := range want {
		if topics[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", topics[i], want[i])
		}
	}
}

func TestCollector(t *testing.T) {
	m := meter.New()
	b := open(t, m)
	p, err := b.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := stagebus.Send(t.Context(), p,
		stagebus.Message{Topic: "t", Body: []byte("12345"), Time: now.Add(-2 * time.Second)},
		stagebus.Message{Topic: "t", Body: []byte("12345"), Time: now.Add(-20 * time.Second)},
		stagebus.Message{Topic: "t", Body: []byte("12345"), Time: now.Add(time.Hour)}); err != nil { // a clock that is ahead
		t.Fatal(err)
	}
	c, err := b.Consumer(t.Context(), stagebus.ConsumerOptions{Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	for dst, n := make([]stagebus.Delivery, 8), 0; n < 3; {
		k, err := c.Receive(t.Context(), dst)
		if err != nil {
			t.Fatal(err)
		}
		for i := range dst[:k] {
			if err := c.Settle(t.Context(), stagebus.Done, dst[i].Token); err != nil {
				t.Fatal(err)
			}
		}
		n += k
	}
	passed := false
	m.Hook(func(stagebus.Event) { passed = true })(stagebus.Event{Kind: stagebus.EventConnected})
	if !passed {
		t.Error("the hook keeps events for itself")
	}

	r := prometheus.NewPedanticRegistry()
	if err := r.Register(m.Collector()); err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP stagebus_events_total What happened inside the adapters: connected, disconnected, blocked, stale…
# TYPE stagebus_events_total counter
stagebus_events_total{kind="connected"} 1
# HELP stagebus_sent_bytes_total Bytes of the messages that the broker has confirmed: key, body, headers.
# TYPE stagebus_sent_bytes_total counter
stagebus_sent_bytes_total{topic="t"} 15
# HELP stagebus_settled_messages_total Messages settled, by verdict: done, release, retry, reject.
# TYPE stagebus_settled_messages_total counter
stagebus_settled_messages_total{topic="t",verdict="done"} 3
stagebus_settled_messages_total{topic="t",verdict="reject"} 0
stagebus_settled_messages_total{topic="t",verdict="release"} 0
stagebus_settled_messages_total{topic="t",verdict="retry"} 0
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want),
		"stagebus_events_total", "stagebus_sent_bytes_total", "stagebus_settled_messages_total"); err != nil {
		t.Error(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "stagebus_latency_seconds" {
			continue
		}
		got := map[float64]uint64{}
		for _, b := range f.GetMetric()[0].GetHistogram().GetBucket() {
			got[b.GetUpperBound()] = b.GetCumulativeCount()
		}
		if got[0.0005] != 1 || got[1] != 1 || got[2.5] != 2 || got[30] != 3 || got[300] != 3 {
			t.Errorf("%v", got)
		}
		return
	}
	t.Error("no stagebus_latency_seconds")
}

func TestTopicsAreBounded(t *testing.T) {
	m := meter.New()
	b := open(t, m)
	p, err := b.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1200 {
		if err := stagebus.Send(t.Context(), p, stagebus.Message{Topic: fmt.Sprint("t", i)}); err != nil {
			t.Fatal(err)
		}
	}
	topics := m.Topics()
	if len(topics) != 1001 || topics[0].Name != meter.Other || topics[0].Sent != 200 {
		t.Errorf("%d topics, the first %+v", len(topics), topics[0])
	}
}
