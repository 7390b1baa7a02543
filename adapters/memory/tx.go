package memory

import (
	"context"
	"errors"
	"time"

	"github.com/stagebus/stagebus"
)

// tx implements [stagebus.Tx]. Outputs and inputs wait here, outside of all logs, so nobody can read what is not committed.
// The store's lock protects what changes.
type tx struct {
	d       *driver
	p       *txProducer
	c       *txConsumer
	outputs []output
	loads   map[string]load  // of the outputs, by topic
	inputs  []stagebus.Token // claimed in their ledgers
}

// output is a message that was submitted, with the log chosen for it.
type output struct {
	topic     string
	partition int32
	m         stagebus.Message // detached
}

// Tx implements [stagebus.Driver].
//
// An outcome of a transaction's producer says that Commit will send the message: its Position has no offset yet (-1), and the error is
// ErrRefused when the transaction has grown as large as the topic. Retry, Reject and Release take effect at once, only Done waits
// for Commit.
func (d *driver) Tx(ctx context.Context, po stagebus.ProducerOptions, co stagebus.ConsumerOptions) (stagebus.Tx, error) {
	p, err := d.producer(ctx, po)
	if err != nil {
		return nil, err
	}
	c, err := d.consumer(ctx, co)
	if err != nil {
		return nil, err
	}
	t := &tx{d: d, loads: map[string]load{}}
	t.p, t.c = &txProducer{tx: t, inner: p}, &txConsumer{tx: t, inner: c}
	return t, nil
}

// Producer implements [stagebus.Tx].
func (t *tx) Producer() stagebus.Producer { return t.p }

// Consumer implements [stagebus.Tx].
func (t *tx) Consumer() stagebus.Consumer { return t.c }

// Commit implements [stagebus.Tx]. It waits until all outputs have room. After ErrStale (a lane of an input has ended) or any other error
// the transaction is as before: Abort it, or try again where waiting helps.
func (t *tx) Commit(ctx context.Context) error {
	s := t.d.store
	s.lock()
	defer s.unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	topics, err := t.ready(ctx)
	if err != nil {
		return err
	}
	for _, o := range t.outputs {
		to := topics[o.topic]
		to.append(to.partitions[o.partition], o.m)
	}
	for _, in := range t.inputs {
		l := in.Lane.(*lane)
		l.ledger.Settle(in.Seq)
		l.settled()
	}
	t.outputs, t.inputs, t.loads = nil, nil, map[string]load{}
	return nil
}

// ready returns the topics of all outputs once each has room for its share, and all inputs can still be settled.
func (t *tx) ready(ctx context.Context) (map[string]*topic, error) {
	for {
		for _, in := range t.inputs {
			if l := in.Lane.(*lane); l.sealed {
				return nil, t.d.fail("commit", l.Info().Topic, stagebus.ErrStale, nil, "Abort: the inputs come again")
			}
		}
		topics, full := t.topics()
		if full == "" {
			return topics, t.checkPartitions(topics)
		}
		// It waits for one topic, then looks at all again: another may have filled up meanwhile.
		if _, err := t.d.room(ctx, "commit", full, t.p.inner.o.Create, t.loads[full]); err != nil {
			return nil, err
		}
	}
}

// topics returns those of all outputs, or the name of one that is missing or has no room.
func (t *tx) topics() (topics map[string]*topic, full string) {
	topics = map[string]*topic{}
	for name, l := range t.loads {
		to := t.d.store.topics[name]
		if to == nil || !to.fits(to.held(), l) {
			return nil, name
		}
		topics[name] = to
	}
	return topics, ""
}

// checkPartitions returns an error if a topic was deleted and declared again with fewer than were chosen from.
func (t *tx) checkPartitions(topics map[string]*topic) error {
	for _, o := range t.outputs {
		if to := topics[o.topic]; int(o.partition) >= len(to.partitions) {
			return t.d.noPartition(o.partition, to)
		}
	}
	return nil
}

// Abort implements [stagebus.Tx]. What was settled comes again with Redelivered set.
func (t *tx) Abort(context.Context) error {
	t.d.store.lock()
	defer t.d.store.unlock()
	t.abort()
	return nil
}

func (t *tx) abort() {
	inputs := t.inputs
	t.outputs, t.inputs, t.loads = nil, nil, map[string]load{}
	for _, in := range inputs {
		l := in.Lane.(*lane)
		l.ledger.Unclaim(in.Seq)
		l.release(in.Seq) // of a sealed lane it comes again anyway
		l.settled()
	}
}

// Close implements [stagebus.Tx]: it aborts what is not committed.
func (t *tx) Close(ctx context.Context) error {
	return errors.Join(t.c.Close(ctx), t.p.Close(ctx))
}

type txProducer struct {
	tx    *tx
	inner *producer
}

// Submit implements [stagebus.Producer].
func (p *txProducer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	s := p.inner.d.store
	s.lock()
	if err := p.inner.begin(ctx); err != nil {
		s.unlock()
		return err
	}
	outcomes := make([]stagebus.Outcome, len(ms))
	now := time.Now()
	for i := range ms {
		outcomes[i] = p.tx.submit(&ms[i], now)
	}
	s.unlock()
	done(outcomes)
	p.inner.end()
	return nil
}

// Close implements [stagebus.Producer]. What was submitted still waits for Commit.
func (p *txProducer) Close(ctx context.Context) error { return p.inner.Close(ctx) }

func (t *tx) submit(m *stagebus.Message, now time.Time) (o stagebus.Outcome) {
	to := t.d.store.find(t.d, m.Topic, t.p.inner.o.Create)
	if to == nil {
		o.Err = t.d.missing("send", m.Topic, stagebus.ErrNoRoute)
		return o
	}
	total := t.loads[m.Topic]
	total.add(load{1, int64(m.Size())})
	if total.n > int64(to.capacity) || total.n > 1 && total.bytes > to.limit {
		o.Err = t.d.fail("send", m.Topic, stagebus.ErrRefused, errors.New("the transaction is larger than the topic's capacity"), "commit more often")
		return o
	}
	log := to.choose(m)
	if log == nil {
		n, _ := m.Partition.Pinned()
		o.Err = t.d.noPartition(n, to)
		return o
	}
	t.outputs = append(t.outputs, output{m.Topic, log.id, detach(m, now)})
	t.loads[m.Topic] = total
	o.Position = stagebus.Position{Topic: m.Topic, Partition: log.id, Offset: -1}
	return o
}

// txConsumer holds its inner consumer and doesn't embed it: Settle is not all that differs.
type txConsumer struct {
	tx    *tx
	inner *consumer
}

// Receive implements [stagebus.Consumer].
func (c *txConsumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	return c.inner.Receive(ctx, dst)
}

// Settle implements [stagebus.Consumer].
func (c *txConsumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	if v.Kind != stagebus.KindDone {
		return c.inner.Settle(ctx, v, ts...)
	}
	s := c.inner.d.store
	s.lock()
	defer s.unlock()
	f := failures{c: c.inner, n: len(ts)}
	for i := range ts {
		l, _ := ts[i].Lane.(*lane)
		if l == nil || l.consumer != c.inner {
			f.stale(i, l)
			continue
		}
		if _, ok := l.ledger.Claim(ts[i].Seq); !ok {
			f.stale(i, l)
			continue
		}
		c.tx.inputs = append(c.tx.inputs, ts[i])
	}
	return f.err()
}

// Flush implements [stagebus.Consumer]. What Commit has not made known is not flushed.
func (c *txConsumer) Flush(ctx context.Context) error { return c.inner.Flush(ctx) }

// Close implements [stagebus.Consumer]: it aborts what is not committed, so that it doesn't wait for it.
func (c *txConsumer) Close(ctx context.Context) error {
	if err := c.tx.Abort(ctx); err != nil {
		return err
	}
	return c.inner.Close(ctx)
}
