package adaptertest

import (
	"bytes"
	"errors"

	"github.com/stagebus/stagebus"
)

// WithStack returns the harness h whose handles carry a stack of two middlewares: one adds a header to each message and
// wants it back, the other changes every byte of the body. What holds for an adapter must hold through a stack.
//
//	t.Run("stack", func(t *testing.T) { adaptertest.Run(t, adaptertest.WithStack(h)) })
func WithStack(h Harness) Harness {
	h.stack = suiteStack()
	return h
}

const stackHeader = "law-stack"

var errNoMark = errors.New("the header of the suite's stack is missing")

func suiteStack() stagebus.Stack {
	mark := stagebus.Transform("mark", stagebus.Structure,
		func(m *stagebus.Message) error {
			m.Headers = append(m.Headers[:len(m.Headers):len(m.Headers)], stagebus.Header{Key: stackHeader, Value: "1"})
			return nil
		},
		func(d *stagebus.Delivery) error {
			if _, ok := d.Headers.Get(stackHeader); !ok {
				return errNoMark
			}
			var hs stagebus.Headers
			for _, h := range d.Headers { // a copy: what was received is read-only
				if h.Key != stackHeader {
					hs = append(hs, h)
				}
			}
			d.Headers = hs
			return nil
		})
	flip := stagebus.Transform("flip", stagebus.Encrypt,
		func(m *stagebus.Message) error { m.Body = flipped(m.Body); return nil },
		func(d *stagebus.Delivery) error { d.Body = flipped(d.Body); return nil })
	s, err := stagebus.NewStack(mark, flip)
	if err != nil {
		panic(err) // the layers above are in order
	}
	return s
}

// flipped changes every byte; it undoes itself, and leaves nil nil.
func flipped(b []byte) []byte {
	if b == nil {
		return nil
	}
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ 0xa5
	}
	return out
}

var stackCases = []Case{
	{Name: "stack/wire-bytes", Proves: "retry and dead letter are made from the bytes as they came, not from what the stack read", run: wireBytesCase},
	{Name: "stack/unreadable", Proves: "a message that the stack can't read comes with its error and as it is, among others, and can be rejected", run: unreadableCase},
}

// plain opens a handle without a stack, layered one with the suite's.
func (e *env) plain() *stagebus.Broker   { return e.open(stagebus.BrokerOptions{}) }
func (e *env) layered() *stagebus.Broker { return e.open(stagebus.BrokerOptions{Stack: suiteStack()}) }

func wireBytesCase(e *env) {
	topic := e.topic()
	dead := stagebus.DeadLetterTopic(topic, "")
	plain, layered := e.plain(), e.layered()
	p := e.producerOf(layered, stagebus.ProducerOptions{})
	c := e.consumerOf(layered, stagebus.ConsumerOptions{Topics: []string{topic}})
	want := eventful(topic)
	e.send(p, want)
	e.settle(c, stagebus.Retry(0), e.receive(c, 1)...)
	d := e.receive(c, 1)[0]
	if s := diff(&want, &d.Message); s != "" {
		e.Errorf("retried, through the stack: %s", s)
	}
	e.settle(c, stagebus.Reject("r"), d)

	wire := want
	wire.Body = flipped(want.Body)
	wire.Headers = append(wire.Headers[:len(wire.Headers):len(wire.Headers)], stagebus.Header{Key: stackHeader, Value: "1"})
	outside := e.consumerOf(plain, stagebus.ConsumerOptions{Topics: []string{dead}})
	d = e.receive(outside, 1)[0]
	if s := diff(&wire, own(&d, topic)); s != "" {
		e.Errorf("the dead letter as it is on the wire: %s", s)
	}
	e.settle(outside, stagebus.Release, d)
	e.closeIt("consumer", outside.Close)
	inside := e.consumerOf(layered, stagebus.ConsumerOptions{Topics: []string{dead}})
	d = e.receive(inside, 1)[0]
	if s := diff(&want, own(&d, topic)); s != "" {
		e.Errorf("the dead letter through the stack: %s", s)
	}
	e.settle(inside, stagebus.Done, d)
	e.nothingBefore(p, inside, dead, "one was rejected")
}

func unreadableCase(e *env) {
	topic := e.topic()
	plain, layered := e.plain(), e.layered()
	c := e.consumerOf(layered, stagebus.ConsumerOptions{Topics: []string{topic}})
	foreign := []byte("written without the stack")
	p := e.producerOf(layered, stagebus.ProducerOptions{})
	e.sendTexts(p, topic, "before")
	e.sendTexts(e.producerOf(plain, stagebus.ProducerOptions{}), topic, string(foreign))
	e.sendTexts(p, topic, "after")
	ds := e.receiveRaw(c, 3)
	if ds[0].Err != nil || ds[2].Err != nil || string(ds[0].Body) != "before" || string(ds[2].Body) != "after" {
		e.Errorf("the neighbours are %s and %s", describe(&ds[0]), describe(&ds[2]))
	}
	// The innermost layer has flipped it; the one that failed left it as it got it.
	if !errors.Is(ds[1].Err, errNoMark) || !bytes.Equal(ds[1].Body, flipped(foreign)) {
		e.Errorf("the unreadable message is %s", describe(&ds[1]))
	}
	e.settle(c, stagebus.Reject(ds[1].Err.Error()), ds[1])
	e.settle(c, stagebus.Done, ds[0], ds[2])
	dead := e.consumerOf(plain, stagebus.ConsumerOptions{Topics: []string{stagebus.DeadLetterTopic(topic, "")}})
	d := e.receive(dead, 1)[0]
	reason, _ := d.Headers.Get(stagebus.HeaderDeadReason)
	if !bytes.Equal(d.Body, foreign) || reason != errNoMark.Error() {
		e.Errorf("its dead letter is %s, reason %q", describe(&d), reason)
	}
	e.settle(dead, stagebus.Done, d)
}
