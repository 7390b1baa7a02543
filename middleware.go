package stagebus

import (
	"context"
	"fmt"
	"slices"
)

// Layer is the place of a [Middleware] in a stack, so that messages are measured, checked, structured, compressed, split,
// encrypted and signed in the one order that is safe, and received in the reverse.
type Layer uint8

// The layers, outermost first.
const (
	Observe Layer = iota
	Policy
	Structure
	Compress
	Split
	Encrypt
	Sign
)

var layerNames = [...]string{"observe", "policy", "structure", "compress", "split", "encrypt", "sign"}

func (l Layer) String() string {
	if int(l) < len(layerNames) {
		return layerNames[l]
	}
	return fmt.Sprintf("Layer(%d)", uint8(l))
}

// Middleware wraps producers and consumers as a matched pair: what Producer does to a message, Consumer undoes. Either may be nil.
// A wrapper must hold the inner value in a field and never embed it: a method added to the interface later would bypass it.
type Middleware struct {
	Name     string
	Layer    Layer
	Producer func(Producer) Producer
	Consumer func(Consumer) Consumer
}

// Stack is a checked list of middleware, outermost first. The zero value is empty and valid.
type Stack struct{ ms []Middleware }

// NewStack returns the stack of ms, given outermost first, or [ErrInvalid] if their layers are out of order. Several of one
// layer keep their order.
func NewStack(ms ...Middleware) (Stack, error) {
	for i := 1; i < len(ms); i++ {
		if a, b := ms[i-1], ms[i]; a.Layer > b.Layer {
			return Stack{}, invalid("stack", a.Name+", "+b.Name,
				fmt.Sprintf("%s (%s) must come inside %s (%s): swap them", a.Name, a.Layer, b.Name, b.Layer))
		}
	}
	return Stack{slices.Clone(ms)}, nil
}

// WrapProducer puts the stack around p.
func (s Stack) WrapProducer(p Producer) Producer {
	for _, m := range slices.Backward(s.ms) {
		if m.Producer != nil {
			p = m.Producer(p)
		}
	}
	return p
}

// WrapConsumer puts the stack around c.
func (s Stack) WrapConsumer(c Consumer) Consumer {
	for _, m := range slices.Backward(s.ms) {
		if m.Consumer != nil {
			c = m.Consumer(c)
		}
	}
	return c
}

// Transform makes the common kind of middleware, one message in, one message out. Out changes a copy of a message before it
// is sent (its Headers and bytes are still the caller's: replace them, don't write to them); an error refuses the whole
// Submit. In undoes it on receipt; its error becomes Delivery.Err, with the message as it was before In. Both must be safe for
// concurrent use; either may be nil.
func Transform(name string, layer Layer, out func(*Message) error, in func(*Delivery) error) Middleware {
	m := Middleware{Name: name, Layer: layer}
	if out != nil {
		m.Producer = func(p Producer) Producer { return &transformProducer{p, out} }
	}
	if in != nil {
		m.Consumer = func(c Consumer) Consumer { return &transformConsumer{c, in} }
	}
	return m
}

type transformProducer struct {
	inner Producer
	out   func(*Message) error
}

func (p *transformProducer) Submit(ctx context.Context, ms []Message, done func([]Outcome)) error {
	cp := slices.Clone(ms)
	var be *BatchError
	for i := range cp {
		if err := p.out(&cp[i]); err != nil {
			be = refuse(be, len(cp), i, err)
		}
	}
	if be != nil {
		return be
	}
	return p.inner.Submit(ctx, cp, done)
}

func (p *transformProducer) Close(ctx context.Context) error { return p.inner.Close(ctx) }

type transformConsumer struct {
	inner Consumer
	in    func(*Delivery) error
}

func (c *transformConsumer) Receive(ctx context.Context, dst []Delivery) (int, error) {
	n, err := c.inner.Receive(ctx, dst)
	for i := range dst[:n] {
		d := &dst[i]
		if d.Err != nil {
			continue // an inner layer could not read it: nothing to undo
		}
		before := d.Message
		if err := c.in(d); err != nil {
			d.Message, d.Err = before, err
		}
	}
	return n, err
}

func (c *transformConsumer) Settle(ctx context.Context, v Verdict, ts ...Token) error {
	return c.inner.Settle(ctx, v, ts...)
}
func (c *transformConsumer) Flush(ctx context.Context) error { return c.inner.Flush(ctx) }
func (c *transformConsumer) Close(ctx context.Context) error { return c.inner.Close(ctx) }

// refuse notes in be that message i of n was refused, the others not sent.
func refuse(be *BatchError, n, i int, err error) *BatchError {
	if be == nil {
		be = &BatchError{Errs: slices.Repeat([]error{ErrNotSent}, n)}
	}
	be.Errs[i] = err
	return be
}
