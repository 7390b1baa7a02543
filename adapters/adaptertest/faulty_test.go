package adaptertest_test

import (
	"context"
	"slices"
	"sync"

	"github.com/stagebus/stagebus"
)

// faulty is a driver with something done to what it opens. A nil function leaves that as it is.
type faulty struct {
	stagebus.Driver
	caps     func(*stagebus.Capabilities)
	options  func(*stagebus.ConsumerOptions)
	producer func(stagebus.Producer) stagebus.Producer
	consumer func(stagebus.Consumer) stagebus.Consumer
	tx       func(stagebus.Tx) stagebus.Tx
	admin    func(stagebus.Admin) stagebus.Admin
}

func (f *faulty) Capabilities() stagebus.Capabilities {
	c := f.Driver.Capabilities()
	if f.caps != nil {
		f.caps(&c)
	}
	return c
}

func (f *faulty) Producer(ctx context.Context, o stagebus.ProducerOptions) (stagebus.Producer, error) {
	p, err := f.Driver.Producer(ctx, o)
	if err == nil && f.producer != nil {
		p = f.producer(p)
	}
	return p, err
}

func (f *faulty) Consumer(ctx context.Context, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	if f.options != nil {
		f.options(&o)
	}
	c, err := f.Driver.Consumer(ctx, o)
	if err == nil && f.consumer != nil {
		c = f.consumer(c)
	}
	return c, err
}

func (f *faulty) Tx(ctx context.Context, po stagebus.ProducerOptions, co stagebus.ConsumerOptions) (stagebus.Tx, error) {
	tx, err := f.Driver.Tx(ctx, po, co)
	if err == nil && f.tx != nil {
		tx = f.tx(tx)
	}
	return tx, err
}

func (f *faulty) Admin() stagebus.Admin {
	if a := f.Driver.Admin(); f.admin != nil {
		return f.admin(a)
	} else {
		return a
	}
}

type (
	submitFunc  func(context.Context, []stagebus.Message, func([]stagebus.Outcome)) error
	receiveFunc func(context.Context, []stagebus.Delivery) (int, error)
	settleFunc  func(context.Context, stagebus.Verdict, ...stagebus.Token) error
	closeFunc   func(context.Context) error
)

// faultyProducer and faultyConsumer are the values that they embed but for the functions that are set.
type faultyProducer struct {
	stagebus.Producer
	submit submitFunc
	close  closeFunc
}

func (p *faultyProducer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	if p.submit != nil {
		return p.submit(ctx, ms, done)
	}
	return p.Producer.Submit(ctx, ms, done)
}

func (p *faultyProducer) Close(ctx context.Context) error {
	if p.close != nil {
		return p.close(ctx)
	}
	return p.Producer.Close(ctx)
}

type faultyConsumer struct {
	stagebus.Consumer
	receive receiveFunc
	settle  settleFunc
	flush   closeFunc
	close   closeFunc
}

func (c *faultyConsumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	if c.receive != nil {
		return c.receive(ctx, dst)
	}
	return c.Consumer.Receive(ctx, dst)
}

func (c *faultyConsumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	if c.settle != nil {
		return c.settle(ctx, v, ts...)
	}
	return c.Consumer.Settle(ctx, v, ts...)
}

func (c *faultyConsumer) Flush(ctx context.Context) error {
	if c.flush != nil {
		return c.flush(ctx)
	}
	return c.Consumer.Flush(ctx)
}

func (c *faultyConsumer) Close(ctx context.Context) error {
	if c.close != nil {
		return c.close(ctx)
	}
	return c.Consumer.Close(ctx)
}

type faultyTx struct {
	stagebus.Tx
	commit, abort closeFunc
}

func (t *faultyTx) Commit(ctx context.Context) error {
	if t.commit != nil {
		return t.commit(ctx)
	}
	return t.Tx.Commit(ctx)
}

func (t *faultyTx) Abort(ctx context.Context) error {
	if t.abort != nil {
		return t.abort(ctx)
	}
	return t.Tx.Abort(ctx)
}

type faultyAdmin struct {
	stagebus.Admin
	declare func(context.Context, stagebus.TopicSpec) error
	delete  func(context.Context, string) error
	purge   func(context.Context, string, string) error
}

func (a *faultyAdmin) Declare(ctx context.Context, s stagebus.TopicSpec) error {
	if a.declare != nil {
		return a.declare(ctx, s)
	}
	return a.Admin.Declare(ctx, s)
}

func (a *faultyAdmin) Delete(ctx context.Context, topic string) error {
	if a.delete != nil {
		return a.delete(ctx, topic)
	}
	return a.Admin.Delete(ctx, topic)
}

func (a *faultyAdmin) Purge(ctx context.Context, topic, group string) error {
	if a.purge != nil {
		return a.purge(ctx, topic, group)
	}
	return a.Admin.Purge(ctx, topic, group)
}

// The following make a driver's wrapper from one fault.

type wrapper = func(stagebus.Driver) stagebus.Driver

// sends changes each message on its way out.
func sends(change func(*stagebus.Message)) wrapper {
	return submits(func(p stagebus.Producer) submitFunc {
		return func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
			ms = slices.Clone(ms)
			for i := range ms {
				ms[i].Headers = slices.Clone(ms[i].Headers)
				change(&ms[i])
			}
			return p.Submit(ctx, ms, done)
		}
	})
}

// submits replaces Submit; make is called for each producer.
func submits(make func(stagebus.Producer) submitFunc) wrapper {
	return produces(func(p stagebus.Producer) stagebus.Producer {
		return &faultyProducer{Producer: p, submit: make(p)}
	})
}

func produces(make func(stagebus.Producer) stagebus.Producer) wrapper {
	return func(d stagebus.Driver) stagebus.Driver { return &faulty{Driver: d, producer: make} }
}

func consumes(make func(*faultyConsumer)) wrapper {
	return func(d stagebus.Driver) stagebus.Driver {
		return &faulty{Driver: d, consumer: func(c stagebus.Consumer) stagebus.Consumer {
			f := &faultyConsumer{Consumer: c}
			make(f)
			return f
		}}
	}
}

// delivers changes each delivery on its way in.
func delivers(change func(*stagebus.Delivery)) wrapper {
	return consumes(func(c *faultyConsumer) {
		c.receive = func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
			n, err := c.Consumer.Receive(ctx, dst)
			for i := range dst[:n] {
				change(&dst[i])
			}
			return n, err
		}
	})
}

// settles changes each verdict.
func settles(change func(stagebus.Verdict) stagebus.Verdict) wrapper {
	return consumes(func(c *faultyConsumer) {
		c.settle = func(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
			return c.Consumer.Settle(ctx, change(v), ts...)
		}
	})
}

// configures changes the options of consumers.
func configures(change func(*stagebus.ConsumerOptions)) wrapper {
	return func(d stagebus.Driver) stagebus.Driver { return &faulty{Driver: d, options: change} }
}

// claims changes the capabilities.
func claims(change func(*stagebus.Capabilities)) wrapper {
	return func(d stagebus.Driver) stagebus.Driver { return &faulty{Driver: d, caps: change} }
}

// administers replaces methods of the Admin.
func administers(make func(*faultyAdmin)) wrapper {
	return func(d stagebus.Driver) stagebus.Driver {
		return &faulty{Driver: d, admin: func(a stagebus.Admin) stagebus.Admin {
			f := &faultyAdmin{Admin: a}
			make(f)
			return f
		}}
	}
}

// counter counts from several goroutines.
type counter struct {
	mu sync.Mutex
	n  int
}

// every reports true at each n-th call.
func (c *counter) every(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n%n == 0
}
