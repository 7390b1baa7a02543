package stagebus

import (
	"context"
	"errors"
	"sync"
)

// BrokerOptions configure a [Broker]. The zero value is usable.
type BrokerOptions struct {
	// Stack wraps every producer and consumer.
	Stack Stack
	// MaxMessage lowers the limit for a message's size below the broker's own.
	MaxMessage int
}

// Broker is the user's handle on one RabbitMQ, Kafka or memory broker. It validates, applies the stack, and closes what it
// opened. All methods are safe for concurrent use.
type Broker struct {
	driver Driver
	o      BrokerOptions

	mu        sync.Mutex // protects the following
	closed    bool
	producers map[*brokerProducer]struct{}
	consumers map[*brokerConsumer]struct{}
	txs       map[*brokerTx]struct{}
}

// NewBroker returns a Broker over an adapter's driver. Users call an adapter's constructor or adapters.Open instead.
func NewBroker(d Driver, o BrokerOptions) *Broker {
	return &Broker{
		driver: d, o: o,
		producers: map[*brokerProducer]struct{}{},
		consumers: map[*brokerConsumer]struct{}{},
		txs:       map[*brokerTx]struct{}{},
	}
}

// Driver returns the adapter's driver, the way to what only one broker has.
func (b *Broker) Driver() Driver { return b.driver }

// Capabilities say what this broker can't do the same way as others.
func (b *Broker) Capabilities() Capabilities { return b.driver.Capabilities() }

// Ping returns nil when the broker answers.
func (b *Broker) Ping(ctx context.Context) error { return b.driver.Ping(ctx) }

// Producer opens a producer.
func (b *Broker) Producer(ctx context.Context, o ProducerOptions) (Producer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if b.isClosed() {
		return nil, ErrClosed
	}
	inner, err := b.driver.Producer(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &brokerProducer{Producer: b.wrapProducer(inner, o), b: b}
	if !track(b, b.producers, p) {
		return nil, errors.Join(ErrClosed, p.Close(ctx))
	}
	return p, nil
}

// Consumer opens a consumer. It returns positioned: what is sent from now on is seen.
func (b *Broker) Consumer(ctx context.Context, o ConsumerOptions) (Consumer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if b.isClosed() {
		return nil, ErrClosed
	}
	inner, err := b.driver.Consumer(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &brokerConsumer{Consumer: b.wrapConsumer(inner), b: b}
	if !track(b, b.consumers, c) {
		return nil, errors.Join(ErrClosed, c.Close(ctx))
	}
	return c, nil
}

// Tx opens a transaction's producer and consumer, both inside the stack, or returns [ErrUnsupported].
func (b *Broker) Tx(ctx context.Context, po ProducerOptions, co ConsumerOptions) (Tx, error) {
	po, err := po.withDefaults()
	if err != nil {
		return nil, err
	}
	if co, err = co.withDefaults(); err != nil {
		return nil, err
	}
	if b.isClosed() {
		return nil, ErrClosed
	}
	inner, err := b.driver.Tx(ctx, po, co)
	if err != nil {
		return nil, err
	}
	tx := &brokerTx{Tx: inner, b: b, p: b.wrapProducer(inner.Producer(), po), c: b.wrapConsumer(inner.Consumer())}
	if !track(b, b.txs, tx) {
		return nil, errors.Join(ErrClosed, tx.Close(ctx))
	}
	return tx, nil
}

// Close closes the consumers first, so that their handlers can still send, then the producers, then the connections.
// Closing again does nothing.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	consumers, producers, txs := keys(b.consumers), keys(b.producers), keys(b.txs)
	b.mu.Unlock()

	return errors.Join(closeAll(ctx, consumers), closeAll(ctx, txs), closeAll(ctx, producers), b.driver.Close(ctx))
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *Broker) wrapProducer(inner Producer, o ProducerOptions) Producer {
	return b.o.Stack.WrapProducer(&guard{inner: inner, b: b, timeout: o.Timeout})
}

func (b *Broker) wrapConsumer(inner Consumer) Consumer {
	return b.o.Stack.WrapConsumer(&dstGuard{inner})
}

// maxMessage is the smaller of the user's and the broker's limits, 0 for none.
func (b *Broker) maxMessage() int {
	limit := b.driver.Capabilities().MaxMessage
	if b.o.MaxMessage > 0 && (limit == 0 || b.o.MaxMessage < limit) {
		limit = b.o.MaxMessage
	}
	return limit
}

func track[T comparable](b *Broker, set map[T]struct{}, v T) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	set[v] = struct{}{}
	return true
}

func untrack[T comparable](b *Broker, set map[T]struct{}, v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(set, v)
}

func keys[T comparable](set map[T]struct{}) []T {
	ks := make([]T, 0, len(set))
	for k := range set {
		ks = append(ks, k)
	}
	return ks
}

func closeAll[T interface{ Close(context.Context) error }](ctx context.Context, cs []T) error {
	errs := make([]error, len(cs))
	var wg sync.WaitGroup
	for i, c := range cs {
		wg.Go(func() { errs[i] = c.Close(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// brokerProducer, brokerConsumer and brokerTx are the outermost wrappers: they take themselves off the broker's list. They embed,
// since they add nothing to any other method and live in this package beside the interfaces.
type brokerProducer struct {
	Producer
	b *Broker
}

func (p *brokerProducer) Close(ctx context.Context) error {
	untrack(p.b, p.b.producers, p)
	return p.Producer.Close(ctx)
}

type brokerConsumer struct {
	Consumer
	b *Broker
}

func (c *brokerConsumer) Close(ctx context.Context) error {
	untrack(c.b, c.b.consumers, c)
	return c.Consumer.Close(ctx)
}

type brokerTx struct {
	Tx
	b *Broker
	p Producer
	c Consumer
}

func (t *brokerTx) Producer() Producer { return t.p }
func (t *brokerTx) Consumer() Consumer { return t.c }
func (t *brokerTx) Close(ctx context.Context) error {
	untrack(t.b, t.b.txs, t)
	return t.Tx.Close(ctx)
}
