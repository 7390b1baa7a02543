package adaptertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/adaptertest"
)

// mutant is memory with one fault, and the case that must catch it.
type mutant struct {
	fault string
	by    string
	wrap  wrapper
}

var mutants = slices.Concat(messageMutants, producerMutants, consumerMutants, settleMutants, otherMutants)

// chancy faults show only when goroutines meet at the wrong moment, in memory as on a broker: their cases get several runs to catch them.
var chancy = map[string]int{
	"close among senders forgets outcomes": 50,
	"drain time ignored on revocation":     50,
	"cancelled Receive loses what arrives": 50,
}

// TestMutants runs each case that is named for a fault, against the fault. That memory without a fault passes them is TestLaw.
func TestMutants(t *testing.T) {
	for fault := range chancy {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.fault == fault }) {
			t.Errorf("there is no fault %q", fault)
		}
	}
	said := make([]func() string, len(mutants))
	room := make(chan struct{}, 16) // most of them wait for what doesn't come
	for i, m := range mutants {
		c, ok := adaptertest.Find(m.by)
		if !ok {
			t.Fatalf("%s: there is no case %q", m.fault, m.by)
		}
		said[i] = sync.OnceValue(func() string {
			h := overMemory(m.wrap)
			h.Patience = 2 * time.Second
			var fs []string
			for run := 0; len(fs) == 0 && run < max(1, chancy[m.fault]); run++ {
				fs = failures(t, c, h)
			}
			return strings.Join(fs, "\n")
		})
		if strings.HasPrefix(m.by, "process/") { // those look at the whole process
			said[i]()
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range said {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			f()
		})
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FAULT\tCAUGHT BY\tWHICH SAYS") // to memory, as all of it
	for i, m := range mutants {
		t.Run(strings.ReplaceAll(m.fault, " ", "-"), func(t *testing.T) {
			if said[i]() == "" {
				t.Errorf("%s passes", m.by)
			}
		})
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.110s\n", m.fault, m.by, strings.ReplaceAll(said[i](), "\n", " "))
	}
	_ = w.Flush()
	t.Logf("%d faults\n%s", len(mutants), &b)
}

// messageMutants harm what is sent.
var messageMutants = []mutant{
	{"body truncated above 64 KiB", "fidelity/large-body", sends(func(m *stagebus.Message) { m.Body = m.Body[:min(len(m.Body), 64<<10)] })},
	{"bytes mangled that are no UTF-8", "fidelity/body", sends(func(m *stagebus.Message) {
		if m.Body != nil {
			m.Body = bytes.ToValidUTF8(m.Body, []byte("\uFFFD"))
		}
	})},
	{"line feed added to the body", "fidelity/body", sends(func(m *stagebus.Message) { m.Body = append(m.Body[:len(m.Body):len(m.Body)], '\n') })},
	{"nil body made empty", "fidelity/nil-body", sends(func(m *stagebus.Message) { m.Body = append([]byte{}, m.Body...) })},
	{"empty body made nil", "fidelity/nil-body", sends(func(m *stagebus.Message) {
		if len(m.Body) == 0 {
			m.Body = nil
		}
	})},
	{"empty key dropped", "fidelity/key", sends(func(m *stagebus.Message) {
		if len(m.Key) == 0 {
			m.Key = nil
		}
	})},
	{"key made text", "fidelity/key", sends(func(m *stagebus.Message) {
		if m.Key != nil {
			m.Key = bytes.ToValidUTF8(m.Key, nil)
		}
	})},
	{"time cut to milliseconds", "fidelity/time", sends(func(m *stagebus.Message) { m.Time = m.Time.Truncate(time.Millisecond) })},
	{"one attribute dropped", "fidelity/attributes", sends(func(m *stagebus.Message) { m.Audience = "" })},
	{"one attribute taken for another", "fidelity/attributes", sends(func(m *stagebus.Message) {
		if m.CorrelationID == "" {
			m.CorrelationID = m.ID
		}
	})},
	{"bare message stamped", "fidelity/bare", sends(func(m *stagebus.Message) {
		if m.ID == "" {
			m.ID = "made up"
		}
	})},
	{"deadline dropped", "fidelity/priority-deadline", sends(func(m *stagebus.Message) { m.Deadline = time.Time{} })},
	{"priority capped", "fidelity/priority-deadline", sends(func(m *stagebus.Message) { m.Priority = min(m.Priority, 9) })},
	{"header trimmed", "headers/values", sends(func(m *stagebus.Message) {
		for i := range m.Headers {
			m.Headers[i].Value = strings.TrimSpace(m.Headers[i].Value)
		}
	})},
	{"header made text", "headers/values", sends(func(m *stagebus.Message) {
		for i := range m.Headers {
			m.Headers[i].Value = strings.ToValidUTF8(m.Headers[i].Value, "?")
		}
	})},
	{"empty header dropped", "headers/empty", sends(func(m *stagebus.Message) {
		m.Headers = slices.DeleteFunc(m.Headers, func(h stagebus.Header) bool { return h.Value == "" })
	})},
	{"header names folded", "headers/names", sends(func(m *stagebus.Message) {
		for i := range m.Headers {
			m.Headers[i].Key = strings.ToLower(m.Headers[i].Key)
		}
	})},
	{"one header kept of each name", "headers/duplicates", sends(func(m *stagebus.Message) {
		for i := 0; i < len(m.Headers); i++ {
			m.Headers = m.Headers.Set(m.Headers[i].Key, m.Headers[i].Value)
		}
	})},
	{"headers sorted", "headers/order", sends(func(m *stagebus.Message) {
		slices.SortStableFunc(m.Headers, func(a, b stagebus.Header) int { return strings.Compare(a.Key, b.Key) })
	})},
	{"headers cut at 64", "headers/many", sends(func(m *stagebus.Message) { m.Headers = m.Headers[:min(64, len(m.Headers))] })},
	{"pin ignored", "send/partition", sends(func(m *stagebus.Message) { m.Partition = 0 })},
}

// fakeLane marks tokens that only a mutant knows.
type fakeLane struct{ stagebus.Lane }

var consumerMutants = []mutant{
	{"delivered twice and not marked", "count/exact", consumes(func(c *faultyConsumer) {
		var seen counter
		var mu sync.Mutex
		var copies []stagebus.Delivery
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(copies) > 0 {
				dst[0], copies = copies[0], copies[1:]
				return 1, nil
			}
			n, err := c.Consumer.Receive(ctx, dst)
			for _, d := range dst[:n] {
				if seen.every(100) {
					d.Token.Lane = fakeLane{d.Token.Lane}
					copies = append(copies, d)
				}
			}
			return n, err
		}
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			ts = slices.DeleteFunc(slices.Clone(ts), func(t stagebus.Token) bool { _, fake := t.Lane.(fakeLane); return fake })
			return c.Consumer.Settle(ctx, v, ts...)
		}
	})},
	{"acked before handled", "close/gives-back", consumes(func(c *faultyConsumer) {
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			for _, d := range dst[:n] {
				err = errors.Join(err, c.Consumer.Settle(ctx, stagebus.Done, d.Token))
			}
			return n, err
		}
		c.settle = func(context.Context, stagebus.Verdict, ...stagebus.Token) error { return nil }
	})},
	{"fetched messages settled by Close", "close/undelivered", consumes(func(c *faultyConsumer) {
		var ahead []stagebus.Delivery
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			if len(ahead) == 0 {
				ahead = make([]stagebus.Delivery, 8)
				n, err := c.Consumer.Receive(ctx, ahead)
				if ahead = ahead[:n]; err != nil {
					return 0, err
				}
			}
			n := copy(dst, ahead)
			ahead = ahead[n:]
			return n, nil
		}
		c.close = func(ctx context.Context) error {
			for _, d := range ahead {
				_ = c.Consumer.Settle(ctx, stagebus.Done, d.Token) // what comes of it is the fault
			}
			return c.Consumer.Close(ctx)
		}
	})},
	{"cancelled Receive loses what arrives", "receive/cancel", consumes(func(c *faultyConsumer) {
		type result struct {
			ds  []stagebus.Delivery
			err error
		}
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			got := make(chan result, 1)
			go func() {
				ds := make([]stagebus.Delivery, len(dst))
				n, err := c.Consumer.Receive(context.WithoutCancel(ctx), ds)
				got <- result{ds[:n], err}
			}()
			select {
			case r := <-got:
				return copy(dst, r.ds), r.err
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	})},
	{"closed consumer has no io.EOF", "receive/eof", consumes(func(c *faultyConsumer) {
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			if errors.Is(err, io.EOF) {
				err = stagebus.ErrClosed
			}
			return n, err
		}
	})},
	{"Receive writes beyond what it returns", "receive/batch", consumes(func(c *faultyConsumer) {
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			if more := dst[:cap(dst)]; n > 0 && len(more) > n {
				more[n] = more[0]
			}
			return n, err
		}
	})},
	{"received bytes reused", "fidelity/kept", func() wrapper {
		var mu sync.Mutex
		buf := make([]byte, 1<<10)
		return delivers(func(d *stagebus.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			d.Body = buf[:copy(buf, d.Body)]
		})
	}()},
	{"attempt not counted", "retry/attempts", delivers(func(d *stagebus.Delivery) { d.Attempt = 1 })},
	{"redelivery not marked", "settle/release", delivers(func(d *stagebus.Delivery) { d.Redelivered = false })},
	{"position made up", "send/outcomes", delivers(func(d *stagebus.Delivery) { d.Position.Offset++ })},
	{"retried message gets a header", "retry/content", delivers(func(d *stagebus.Delivery) {
		if d.Attempt > 1 {
			d.Headers = append(slices.Clone(d.Headers), stagebus.Header{Key: "x-retries", Value: "1"})
		}
	})},
	{"retried message has its queue's name", "retry/content", delivers(func(d *stagebus.Delivery) {
		if d.Attempt > 1 {
			d.Topic = d.Position.Topic
		}
	})},
	{"group sharing broken: each member gets all", "group/share", configures(func() func(*stagebus.ConsumerOptions) {
		var n counter
		return func(o *stagebus.ConsumerOptions) {
			if o.Mode == stagebus.Shared && n.every(1) {
				o.Group += fmt.Sprint(n.n)
			}
		}
	}())},
	{"all groups are one", "group/each", configures(func(o *stagebus.ConsumerOptions) {
		if o.Mode == stagebus.Shared {
			o.Group = stagebus.DefaultGroup
		}
	})},
	{"default group has no name", "group/default", configures(func(o *stagebus.ConsumerOptions) {
		if o.Group == stagebus.DefaultGroup {
			o.Group = "standard"
		}
	})},
	{"prefetch ignored", "receive/prefetch", configures(func(o *stagebus.ConsumerOptions) { o.Prefetch = 1000 })},
	{"prefetch bytes ignored", "receive/prefetch-bytes", configures(func(o *stagebus.ConsumerOptions) { o.PrefetchBytes = 1 << 30 })},
	{"start ignored", "start/kinds", configures(func(o *stagebus.ConsumerOptions) { o.Start = stagebus.Start{} })},
	{"Ephemeral is a group", "receive/ephemeral", configures(func(o *stagebus.ConsumerOptions) {
		if o.Mode == stagebus.Ephemeral {
			o.Mode, o.Group = stagebus.Shared, "tail"
		}
	})},
	{"Assigned commits", "start/assigned", configures(func(o *stagebus.ConsumerOptions) {
		if o.Mode == stagebus.Assigned {
			o.Mode, o.Group, o.Partitions = stagebus.Shared, "assigned", nil
		}
	})},
	{"drain time ignored on Close", "close/drains", configures(func(o *stagebus.ConsumerOptions) { o.Drain = 1 })},
	{"drain time ignored on revocation", "group/join", configures(func(o *stagebus.ConsumerOptions) { o.Drain = 1 })},
	{"Close waits longer than its context", "close/drain-limit", consumes(func(c *faultyConsumer) {
		c.close = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
			defer cancel()
			return c.Consumer.Close(ctx)
		}
	})},
	{"close before goroutines end", "process/goroutines", consumes(func(c *faultyConsumer) {
		c.close = func(ctx context.Context) error {
			err := c.Consumer.Close(ctx)
			go func() { <-time.After(200 * time.Millisecond) }()
			return err
		}
	})},
}
