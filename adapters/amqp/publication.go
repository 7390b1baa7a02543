package amqp

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// batch is the publications of one Submit and what became of them.
type batch struct {
	ctx      context.Context
	pubs     []publication
	outcomes []stagebus.Outcome
	open     atomic.Int64
	done     func([]stagebus.Outcome)
	stop     func() bool // of the watch on the context
}

// publication is one message on its way. It is resolved exactly once, by whoever is first: its confirm, the end of its context, the end of
// its publisher.
type publication struct {
	b     *batch
	index int    // in b
	topic string // for errors
	queue string // where the default exchange brings it
	via   routes // not tried yet
	back  bool   // it came back from one of two routes

	twoWays bool // it has two routes, or had
	msg     amqp091.Publishing
	size    int
	lane    uint32 // messages of one key share it
	state   atomic.Int32

	confirm *amqp091.DeferredConfirmation // of the last try
	route   routes                        // of the last try
}

// routes is a set of ways to a queue.
type routes uint8

const (
	viaExchange routes = 1 << iota // the exchange of all topics, to every queue bound to the topic
	direct                         // the default exchange, to the queue of that name
)

const (
	waiting  int32 = iota // it has not left
	leaving               // it may have left
	resolved              // nobody waits for it any more
)

func (p *publication) resolve(from int32, err error) bool {
	if !p.state.CompareAndSwap(from, resolved) {
		return false
	}
	o := &p.b.outcomes[p.index]
	if o.Err = err; err == nil {
		o.Position = stagebus.Position{Topic: p.topic, Offset: -1}
	}
	if p.b.open.Add(-1) == 0 {
		p.b.stop()
		p.b.done(p.b.outcomes)
	}
	return true
}

// late says that a publication that waits must not be sent any more. The end of the context counts, not only that expire has been here: it takes
// one after the other, and what it has yet to come to would be sent, though what was before it is given up.
func (p *publication) late() bool { return p.b.ctx.Err() != nil || p.state.Load() == resolved }

// expire resolves what is open: the context ended, or the publisher.
func (b *batch) expire(p *publisher, cause error) {
	for i := range b.pubs {
		pub := &b.pubs[i]
		for done := false; !done; { // a pipe may move it between the two states meanwhile
			switch pub.state.Load() {
			case waiting:
				done = pub.resolve(waiting, p.unsent(pub.topic, cause))
			case leaving:
				done = pub.resolve(leaving, p.uncertain(pub.topic, cause))
			default:
				done = true
			}
		}
	}
}

// returned reports whether r is this publication coming back. Returns come in the order of publishing and before their
// confirms, so that only one that looks the same can be mistaken for it, and then the mistake makes no difference.
func (p *publication) returned(r *amqp091.Return, exchange, key string) bool {
	return r.Exchange == exchange && r.RoutingKey == key && r.MessageId == p.msg.MessageId &&
		r.CorrelationId == p.msg.CorrelationId && bytes.Equal(r.Body, p.msg.Body)
}

func (p *publisher) uncertain(topic string, cause error) error {
	return p.config.fail("send", topic, stagebus.ErrUncertain, cause, "send it again with the same ID if a duplicate is better than a loss")
}

// unsent says why a message has not left.
func (p *publisher) unsent(topic string, cause error) error {
	e := &stagebus.Error{Op: "send", Broker: p.config.display, Topic: topic, Cause: cause, Do: "it was not sent"}
	if errors.Is(cause, stagebus.ErrClosed) {
		e.Kind, e.Cause = stagebus.ErrClosed, nil
	} else if broken := p.link.broken(); broken != nil {
		e.Kind, e.Cause, e.Do = stagebus.ErrUnavailable, &joined{cause, broken}, "it was not sent; is the broker running and reachable?"
	} else if held := p.link.blocked(); held != nil {
		e.Kind, e.Cause, e.Do = stagebus.ErrRefused, &joined{cause, held}, "it was not sent; free memory or disk on the broker, or send it again later"
	}
	return e
}

// joined is errors.Join on one line.
type joined struct{ first, second error }

func (j *joined) Error() string   { return j.first.Error() + ", " + j.second.Error() }
func (j *joined) Unwrap() []error { return []error{j.first, j.second} }
