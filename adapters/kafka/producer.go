package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/murmur2"
	"github.com/stagebus/stagebus/internal/envelope"
)

const (
	// metadataAge is how old the number of a topic's partitions may be for a producer: partitions are added rarely.
	metadataAge = time.Minute
	// missingFor is how long a topic may be unknown before it counts as missing: brokers hear of a new one at different times.
	missingFor = 500 * time.Millisecond
)

// producer queues messages by partition. A partition with messages has one goroutine, which sends what has gathered while its last
// request was under way: batches form under load, and nothing waits for one without.
type producer struct {
	c      *client
	d      *directory
	out    appender
	o      stagebus.ProducerOptions
	batch  int // bytes
	window *window
	wg     sync.WaitGroup

	// stop ends the requests under way once nobody waits for them any more.
	stop context.CancelFunc
	ctx  context.Context

	mu     sync.Mutex
	queues map[place]*queue
	sticky map[string]*sticky
	calls  map[*call]struct{}
}

type place struct {
	topic     string
	partition int32
}

// queue is what waits for one partition. It exists as long as it has a goroutine.
type queue struct{ items []*item }

// item is a message on its way: entry i of its call.
type item struct {
	m    stagebus.Message
	raw  *record // instead of m
	at   place
	call *call
	i    int
}

func (it *item) record() record {
	if it.raw != nil {
		return *it.raw
	}
	return recordOf(&it.m)
}

func newProducer(c *client, d *directory, o stagebus.ProducerOptions, n ProducerOptions) *producer {
	ctx, stop := context.WithCancel(context.Background())
	acks := int16(acksAll)
	if n.UnsafeLeaderOnly {
		acks = acksLeader
	}
	return &producer{
		c: c, d: d, out: &leaderAppender{c, d, acks}, o: o, batch: n.BatchBytes,
		window: newWindow(o.Window, o.WindowBytes), ctx: ctx, stop: stop,
		queues: map[place]*queue{}, sticky: map[string]*sticky{}, calls: map[*call]struct{}{},
	}
}

// Submit implements [stagebus.Producer].
func (p *producer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	topics, err := p.topics(ctx, ms)
	if err != nil {
		return err
	}
	bytes := 0
	for i := range ms {
		bytes += ms[i].Size()
	}
	return p.accept(ctx, len(ms), bytes, done, func(items []item) {
		for i := range ms {
			t := topics[ms[i].Topic]
			it := &items[i]
			it.m = ms[i]
			it.m.Headers = slices.Clone(it.m.Headers) // the array is the caller's
			it.at = place{t.name, p.choose(&it.m, t, it.m.Size())}
		}
	})
}

// forward appends records as they are, to places that exist, and returns an error for each when all have their outcome, or the one
// error of all.
func (p *producer) forward(ctx context.Context, rs []record, at []place) ([]error, error) {
	bytes := 0
	for i := range rs {
		bytes += recordSize(rs[i], 0, 0)
	}
	result := make(chan []error, 1)
	err := p.accept(ctx, len(rs), bytes, func(os []stagebus.Outcome) {
		errs := make([]error, len(os))
		for i := range os {
			errs[i] = os[i].Err
		}
		result <- errs
	}, func(items []item) {
		for i := range rs {
			items[i].raw, items[i].at = &rs[i], at[i]
		}
	})
	if err != nil {
		return nil, err
	}
	return <-result, nil
}

// topics finds where each message goes, or says for all of them why not.
func (p *producer) topics(ctx context.Context, ms []stagebus.Message) (map[string]*target, error) {
	found := map[string]*target{}
	var errs []error
	refuse := func(i int, err error) {
		if errs == nil {
			errs = slices.Repeat([]error{stagebus.ErrNotSent}, len(ms))
		}
		errs[i] = err
	}
	for i := range ms {
		m := &ms[i]
		t := found[m.Topic]
		if t == nil {
			t = p.find(ctx, m.Topic)
			found[m.Topic] = t
		}
		if t.err != nil {
			if ctx.Err() != nil {
				return nil, t.err
			}
			refuse(i, t.err)
			continue
		}
		if n, pinned := m.Partition.Pinned(); pinned && int(n) >= t.partitions {
			refuse(i, &stagebus.Error{Op: "send", Broker: p.c.url, Topic: m.Topic, Kind: stagebus.ErrNotFound,
				Cause: kgo.InvalidPartitionNumber, Do: "the message is pinned to a partition that the topic doesn't have"})
		}
	}
	if errs != nil {
		return nil, &stagebus.BatchError{Errs: errs}
	}
	return found, nil
}

// target is a topic to send to.
type target struct {
	name       string
	partitions int
	err        error
}

func (p *producer) find(ctx context.Context, topic string) *target {
	name, err := physical(topic)
	if err != nil {
		return &target{err: err}
	}
	deadline := time.Now().Add(missingFor)
	for b := (backoff{min: 20 * time.Millisecond, max: 200 * time.Millisecond}); ; {
		t, err := p.d.topic(ctx, name, metadataAge)
		switch {
		case err != nil && !errors.Is(err, kgo.UnknownTopicOrPartition):
			return &target{err: p.c.fail("send", topic, err)}
		case err == nil && t.err == 0 && len(t.leaders) > 0:
			return &target{name: name, partitions: len(t.leaders)}
		case err == nil && t.err != 0 && !t.missing() && t.err != kgo.LeaderNotAvailable:
			return &target{err: p.c.fail("send", topic, t.err)}
		case p.o.Create:
			if err := p.d.create(ctx, name, 0, nil); err != nil {
				return &target{err: err}
			}
			continue
		case time.Now().After(deadline):
			return &target{err: p.noRoute(topic, kgo.UnknownTopicOrPartition)}
		}
		if err := b.wait(ctx); err != nil {
			return &target{err: err}
		}
	}
}

func (p *producer) noRoute(topic string, cause error) error {
	name, _ := physical(topic)
	return &stagebus.Error{Op: "send", Broker: p.c.url, Topic: topic, Kind: stagebus.ErrNoRoute, Cause: cause,
		Do: "run: stagebus topics declare " + name + " (or set Create, --create in the command)"}
}

// accept waits for room for n messages and puts them into their queues; fill says what they are and where they go. It is
// called while nothing else is accepted.
func (p *producer) accept(ctx context.Context, n, bytes int, done func([]stagebus.Outcome), fill func([]item)) error {
	return p.window.enter(ctx, n, bytes, func(wn, wbytes int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		items := make([]item, n)
		fill(items)
		cl := newCall(n, done)
		cl.n, cl.bytes = wn, wbytes
		p.calls[cl] = struct{}{}
		cl.start(ctx, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.calls, cl)
		}, p.window)
		for i := range items {
			it := &items[i]
			it.call, it.i = cl, i
			q := p.queues[it.at]
			if q == nil {
				q = &queue{}
				p.queues[it.at] = q
				p.wg.Go(func() { p.run(it.at, q) })
			}
			q.items = append(q.items, it)
		}
	})
}

func (p *producer) choose(m *stagebus.Message, t *target, size int) int32 {
	if n, pinned := m.Partition.Pinned(); pinned {
		return n
	}
	if m.Key != nil {
		return murmur2.Partition(m.Key, t.partitions)
	}
	s := p.sticky[t.name]
	if s == nil {
		s = &sticky{}
		p.sticky[t.name] = s
	}
	return s.next(t.partitions, size)
}

// run sends what is queued for a partition and ends when nothing is.
func (p *producer) run(at place, q *queue) {
	var w batchWriter
	s := &sender{p: p, at: at}
	for {
		p.mu.Lock()
		items := q.items
		q.items = nil
		if len(items) == 0 {
			delete(p.queues, at)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		for len(items) > 0 {
			n := p.fill(&w, items)
			s.send(items[:n], w.b)
			items = items[n:]
		}
		if cap(w.b) > 4<<20 {
			w.b = nil // one huge message must not keep its room for ever
		}
	}
}

// fill makes a batch of the first items, at least one, and returns how many.
func (p *producer) fill(w *batchWriter, items []*item) int {
	w.b, w.count = w.b[:0], 0
	for i, it := range items {
		if !w.add(it.record(), p.batch) {
			w.finish()
			return i
		}
	}
	w.finish()
	return len(items)
}

func recordOf(m *stagebus.Message) record {
	r := record{time: m.Time, key: m.Key, value: m.Body}
	envelope.EncodeKafka(m, envelope.Meta{}, func(name, value string) {
		r.headers = append(r.headers, header{name, []byte(value)})
	})
	return r
}

// Close implements [stagebus.Producer].
func (p *producer) Close(ctx context.Context) error {
	var err error
	select {
	case <-p.window.close():
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.stop()
	p.mu.Lock()
	open := make([]*call, 0, len(p.calls))
	for cl := range p.calls {
		open = append(open, cl)
	}
	p.mu.Unlock()
	for _, cl := range open {
		cl.end(&stagebus.Error{Op: "send", Broker: p.c.url, Kind: stagebus.ErrUncertain, Cause: stagebus.ErrClosed,
			Do: "the producer was closed before the broker's answer"}, nil)
	}
	p.wg.Wait()
	return err
}
