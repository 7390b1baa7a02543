// Package meter counts what a program sends, receives and settles, by topic, and how long messages were on their way. It is the one
// set of numbers behind the command's tables and its Prometheus metrics.
package meter

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stagebus/stagebus"
)

// maxTopics bounds memory and the number of time series: what comes after it, reply topics for example, is counted as [Other].
const maxTopics = 1000

// Other is the name under which topics beyond the first thousand are counted together.
const Other = "(other)"

// Meter counts. All methods are safe for concurrent use.
type Meter struct {
	mu     sync.Mutex // protects the following
	topics map[string]*topic
	events map[stagebus.EventKind]int64

	lanes sync.Map // stagebus.Lane -> *topic: a token knows its lane, and a lane's physical topic may be a queue or a retry topic
}

// Topic is what was counted for one topic. Bytes are those of [stagebus.Message.Size].
type Topic struct {
	Name                              string
	Sent, SentBytes, SendFailed       int64 // SendFailed: failed or uncertain
	Received, ReceivedBytes           int64
	Done, Released, Retried, Rejected int64 // settled without an error
	Latency                           Latency
}

// Latency is how long messages were on their way, from Message.Time to Receive. Messages without a time aren't counted, and clocks of
// two machines may differ.
type Latency struct {
	Count         int64
	P50, P99, Max time.Duration
}

// topic is a Topic in the making.
type topic struct {
	mu      sync.Mutex // protects the following
	n       Topic
	latency *hdrhistogram.Histogram // microseconds; nil until the first
	sum     time.Duration
}

// New returns a Meter that has counted nothing.
func New() *Meter {
	return &Meter{topics: map[string]*topic{}, events: map[stagebus.EventKind]int64{}}
}

// Topics returns what was counted so far, sorted by name.
func (m *Meter) Topics() []Topic {
	var out []Topic
	for _, t := range m.all() {
		t.mu.Lock()
		n := t.n
		if h := t.latency; h != nil {
			n.Latency = Latency{h.TotalCount(), micros(h.ValueAtQuantile(50)), micros(h.ValueAtQuantile(99)), micros(h.Max())}
		}
		t.mu.Unlock()
		out = append(out, n)
	}
	return out
}

// all returns the topics in the order of their names.
func (m *Meter) all() []*topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.topics), func(a, b *topic) int { return strings.Compare(a.n.Name, b.n.Name) })
}

// Hook counts events by their kind and passes them on to next, which may be nil.
func (m *Meter) Hook(next stagebus.Hook) stagebus.Hook {
	return func(e stagebus.Event) {
		m.mu.Lock()
		m.events[e.Kind]++
		m.mu.Unlock()
		next.Emit(e)
	}
}

// Middleware counts what passes. It belongs outermost, where a message is as its user sees it.
func (m *Meter) Middleware() stagebus.Middleware {
	return stagebus.Middleware{
		Name: "meter", Layer: stagebus.Observe,
		Producer: func(p stagebus.Producer) stagebus.Producer { return &producer{p, m} },
		Consumer: func(c stagebus.Consumer) stagebus.Consumer { return &consumer{c, m} },
	}
}

func (m *Meter) topic(name string) *topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[name]
	if t == nil && len(m.topics) >= maxTopics {
		name = Other
		t = m.topics[name]
	}
	if t == nil {
		name = strings.Clone(name) // it may be a part of a message's memory
		t = &topic{n: Topic{Name: name}}
		m.topics[name] = t
	}
	return t
}

type producer struct {
	inner stagebus.Producer
	m     *Meter
}

func (p *producer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	// done may run after Submit has returned, when ms is the caller's again.
	type sent struct {
		topic *topic
		size  int64
	}
	batch := make([]sent, len(ms))
	for i := range ms {
		if i > 0 && ms[i].Topic == ms[i-1].Topic {
			batch[i].topic = batch[i-1].topic
		} else {
			batch[i].topic = p.m.topic(ms[i].Topic)
		}
		batch[i].size = int64(ms[i].Size())
	}
	err := p.inner.Submit(ctx, ms, func(os []stagebus.Outcome) {
		for i, b := range batch {
			b.topic.sent(b.size, os[i].Err)
		}
		done(os)
	})
	if err != nil { // none was accepted
		for _, b := range batch {
			b.topic.sent(b.size, err)
		}
	}
	return err
}

func (p *producer) Close(ctx context.Context) error { return p.inner.Close(ctx) }

func (t *topic) sent(size int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.n.SendFailed++
		return
	}
	t.n.Sent++
	t.n.SentBytes += size
}

type consumer struct {
	inner stagebus.Consumer
	m     *Meter
}

func (c *consumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	n, err := c.inner.Receive(ctx, dst)
	now := time.Now()
	for i := range dst[:n] {
		d := &dst[i]
		t := c.m.topic(d.Topic)
		t.received(d, now)
		if _, known := c.m.lanes.Load(d.Token.Lane); !known && d.Token.Lane != nil {
			c.m.watch(d.Token.Lane, t)
		}
	}
	return n, err
}

// watch remembers which topic the tokens of a lane are of, for as long as the lane lives.
func (m *Meter) watch(l stagebus.Lane, t *topic) {
	if _, known := m.lanes.LoadOrStore(l, t); !known {
		context.AfterFunc(l.Context(), func() { m.lanes.Delete(l) })
	}
}

func (t *topic) received(d *stagebus.Delivery, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n.Received++
	t.n.ReceivedBytes += int64(d.Size())
	if d.Time.IsZero() {
		return
	}
	if t.latency == nil {
		t.latency = hdrhistogram.New(1, time.Hour.Microseconds(), 2)
	}
	// A clock that is behind gives a negative latency: nothing better than zero can be said of it.
	took := min(max(now.Sub(d.Time), time.Microsecond), time.Hour)
	t.sum += took
	_ = t.latency.RecordValue(took.Microseconds()) // in range
}

func (c *consumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	// Looked up before: settling may end a lane.
	topics := make([]*topic, len(ts))
	for i := range ts {
		if t, ok := c.m.lanes.Load(ts[i].Lane); ok {
			topics[i] = t.(*topic)
		}
	}
	err := c.inner.Settle(ctx, v, ts...)
	failed := failures(err, len(ts))
	for i, t := range topics {
		if t != nil && failed(i) == nil {
			t.settled(v.Kind)
		}
	}
	return err
}

func (c *consumer) Flush(ctx context.Context) error { return c.inner.Flush(ctx) }
func (c *consumer) Close(ctx context.Context) error { return c.inner.Close(ctx) }

func (t *topic) settled(k stagebus.Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch k {
	case stagebus.KindDone:
		t.n.Done++
	case stagebus.KindRetry:
		t.n.Retried++
	case stagebus.KindReject:
		t.n.Rejected++
	default:
		t.n.Released++
	}
}

// failures returns the error of each of n tokens.
func failures(err error, n int) func(i int) error {
	if be, ok := err.(*stagebus.BatchError); ok && len(be.Errs) == n { //nolint:errorlint // only one that isn't wrapped is aligned with our tokens
		return func(i int) error { return be.Errs[i] }
	}
	return func(int) error { return err }
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
