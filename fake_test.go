package stagebus

import (
	"context"
	"io"
	"sync"
)

// fakeDriver records what reaches an adapter, for the tests of this package.
type fakeDriver struct {
	UnimplementedDriver
	caps     Capabilities
	producer *fakeProducer
	consumer *fakeConsumer

	mu  sync.Mutex
	log []string // what was closed, in order
}

func (d *fakeDriver) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, s)
}

func (d *fakeDriver) Producer(context.Context, ProducerOptions) (Producer, error) {
	d.producer.d = d
	return d.producer, nil
}

func (d *fakeDriver) Consumer(context.Context, ConsumerOptions) (Consumer, error) {
	d.consumer.d = d
	return d.consumer, nil
}
func (d *fakeDriver) Capabilities() Capabilities  { return d.caps }
func (d *fakeDriver) Close(context.Context) error { d.note("driver"); return nil }

// fakeProducer keeps each batch; hold makes outcomes wait for release.
type fakeProducer struct {
	d *fakeDriver

	mu      sync.Mutex
	batches [][]Message
	ctx     context.Context
	hold    bool
	held    []func()
	refuse  func(ms []Message) error
	outcome func(m Message) error
	arrived chan int // receives the size of each batch if not nil
}

func (p *fakeProducer) Submit(ctx context.Context, ms []Message, done func([]Outcome)) error {
	p.mu.Lock()
	if p.refuse != nil {
		if err := p.refuse(ms); err != nil {
			p.mu.Unlock()
			return err
		}
	}
	p.ctx = ctx
	p.batches = append(p.batches, append([]Message(nil), ms...))
	os := make([]Outcome, len(ms))
	for i := range ms {
		if p.outcome != nil {
			os[i].Err = p.outcome(ms[i])
		}
	}
	hold := p.hold
	if hold {
		p.held = append(p.held, func() { done(os) })
	}
	p.mu.Unlock()
	if p.arrived != nil {
		p.arrived <- len(ms)
	}
	if !hold {
		done(os)
	}
	return nil
}

// release gives the held batches their outcomes and holds no more.
func (p *fakeProducer) release() {
	p.mu.Lock()
	held := p.held
	p.held, p.hold = nil, false
	p.mu.Unlock()
	for _, f := range held {
		f()
	}
}

func (p *fakeProducer) Close(context.Context) error {
	if p.d != nil {
		p.d.note("producer")
	}
	return nil
}

// fakeConsumer delivers what it is given, then err, and records verdicts.
type fakeConsumer struct {
	d        *fakeDriver
	mu       sync.Mutex
	ds       []Delivery
	end      error
	verdicts []Verdict
	fail     error
}

func (c *fakeConsumer) Receive(_ context.Context, dst []Delivery) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ds) == 0 {
		if c.end != nil {
			return 0, c.end
		}
		return 0, io.EOF
	}
	n := copy(dst, c.ds)
	c.ds = c.ds[n:]
	return n, nil
}

func (c *fakeConsumer) Settle(_ context.Context, v Verdict, ts ...Token) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	for range ts {
		c.verdicts = append(c.verdicts, v)
	}
	return nil
}
func (c *fakeConsumer) Flush(context.Context) error { return nil }
func (c *fakeConsumer) Close(context.Context) error {
	if c.d != nil {
		c.d.note("consumer")
	}
	return nil
}
