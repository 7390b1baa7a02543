package amqp

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
	"github.com/stagebus/stagebus/internal/envelope"
)

// subscription is a consumer's share of one topic.
type subscription struct {
	c     *consumer
	place place
}

func (c *consumer) subscription(topic string) (*subscription, error) {
	if c.o.Mode == stagebus.Ephemeral {
		_, queue := stagebus.RawQueue(topic)
		_, kafka := stagebus.RawTopic(topic)
		if queue || kafka {
			return nil, c.d.fail("consume", topic, stagebus.ErrUnsupported, nil, "a copy of what is sent to a topic needs a topic: a queue gives each message to one consumer")
		}
		return &subscription{c, place{topic: topic}}, nil
	}
	p, err := c.d.placeOf("consume", topic, c.o.Group)
	if err != nil {
		return nil, err
	}
	if p.single = c.o.KeyOrder; p.single && p.foreign {
		return nil, c.d.fail("consume", topic, stagebus.ErrUnsupported, nil, "KeyOrder needs a queue that is declared here: leave out \"queue:\"")
	}
	if c.native.QueueType != "" {
		p.queueType = c.native.QueueType
	}
	return &subscription{c, p}, nil
}

func (sub *subscription) advice(err error) string {
	if sub.place.foreign && code(err) == amqp091.NotFound {
		return "the queue doesn't exist: whoever owns it has to declare it"
	}
	return ""
}

// attach begins to consume: a new lane. Only the first declares what is missing: a queue that vanished later was taken away by somebody, and is
// waited for. The errors are plain.
func (sub *subscription) attach(ctx context.Context, s *session, first bool) (*lane, error) {
	queue := sub.place.queue
	var err error
	switch {
	case sub.c.o.Mode == stagebus.Ephemeral:
		queue, err = s.declarePrivate(ctx, sub.place.topic)
	case first:
		err = sub.ensure(ctx, s)
	default:
		_, err = s.inspect(ctx, queue)
	}
	if err != nil {
		return nil, err
	}
	l := &lane{
		c: sub.c, place: sub.place, queue: queue, s: s, tag: "stagebus-" + rand.Text(),
		info:      stagebus.LaneInfo{Topic: queue, Group: sub.place.group, Epoch: s.epoch},
		cancelled: make(chan string, 1), closed: make(chan *amqp091.Error, 1),
		ledger: ledger.New[arrived](), draining: make(chan struct{}),
		kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1), gone: map[uint64]struct{}{}, retries: map[string]string{},
	}
	err = s.do(ctx, func() error {
		var err error
		if l.ch, err = s.conn.Channel(); err != nil {
			return err
		}
		l.acker = l.ch
		l.ch.NotifyCancel(l.cancelled)
		l.ch.NotifyClose(l.closed)
		if err = l.ch.Qos(sub.c.prefetch, 0, false); err == nil {
			l.deliveries, err = l.ch.Consume(queue, l.tag, false, false, false, false, nil)
		}
		if err != nil {
			_ = l.ch.Close() // err says more
		}
		return err
	}, func() { _ = l.ch.Close() })
	if err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l, nil
}

// ensure makes the group's queue exist if its topic does, or is to be made. A topic exists where the default group's queue does.
func (sub *subscription) ensure(ctx context.Context, s *session) error {
	p := sub.place
	if !sub.c.o.Create {
		_, err := s.inspect(ctx, p.queue)
		if code(err) == amqp091.NotFound && p.queue != p.topic && !p.foreign {
			_, err = s.inspect(ctx, p.topic)
		}
		if err != nil {
			return err
		}
	}
	return sub.c.d.ensure(ctx, s, p)
}

// declarePrivate makes a queue that dies with its consumer, and binds it to the topic.
func (s *session) declarePrivate(ctx context.Context, topic string) (string, error) {
	if err := s.exchange(ctx, true); err != nil {
		return "", err
	}
	name := make(chan string, 1)
	err := s.scratch(ctx, func(ch *amqp091.Channel) error {
		q, err := ch.QueueDeclare("", false, true, true, false, amqp091.Table{"x-queue-type": classic})
		if err != nil {
			return err
		}
		name <- q.Name
		return ch.QueueBind(q.Name, topic, s.config.Exchange, false, nil)
	})
	if err != nil {
		return "", err
	}
	return <-name, nil
}

// run reads one lane after the other until the consumer closes.
func (sub *subscription) run(l *lane) {
	for l != nil {
		for raw := range l.deliveries {
			sub.c.arrive(l.receive(&raw))
		}
		if sub.c.ctx.Err() != nil {
			return // Close ends the lane
		}
		cause := l.why()
		// The channel is still there if only the consumer was cancelled: what was settled can be told.
		ctx, cancel := context.WithTimeout(sub.c.ctx, rpcTimeout)
		_ = l.s.do(ctx, func() error { // the lane ends either way, and counts what was not told
			l.asking.Lock()
			defer l.asking.Unlock()
			l.write(true)
			l.calm(ctx)
			return l.ch.Close()
		}, nil)
		cancel()
		l.end(cause)
		l = sub.again(cause)
	}
}

// again gets the next lane, however long that takes; nil: the consumer closes.
func (sub *subscription) again(cause error) *lane {
	c := sub.c
	var pause backoff
	missing := false
	for {
		pause.limit = backoffMissing
		event := stagebus.Event{Topic: sub.place.topic, Group: sub.place.group}
		event.Err = c.d.fail("consume", sub.place.topic, nil, cause, sub.advice(cause))
		switch _, kind := classify(cause); {
		case errors.Is(kind, stagebus.ErrNotFound):
			if !missing {
				missing = true
				event.Kind = stagebus.EventMissing
				c.d.emit(event)
			}
		case !errors.Is(kind, stagebus.ErrUnavailable): // of which the link tells
			pause.limit = backoffLast // a permission, or a queue of other properties: somebody has to do something
			event.Kind = stagebus.EventError
			c.d.emit(event)
		}
		if !pause.sleep(c.ctx) {
			return nil
		}
		s, err := c.d.consume.wait(c.ctx)
		if err != nil {
			return nil
		}
		var l *lane
		if l, cause = sub.attach(c.ctx, s, false); cause != nil {
			continue
		}
		if !c.add(l) {
			_ = s.try(c.ctx, l.ch.Close, nil)
			return nil
		}
		return l
	}
}

// receive makes a delivery of what came.
func (l *lane) receive(raw *amqp091.Delivery) arrival {
	d := stagebus.Delivery{Redelivered: raw.Redelivered, Position: stagebus.Position{Topic: l.queue, Offset: -1}}
	d.Topic, d.Body = l.place.topic, raw.Body
	meta, err := envelope.DecodeAMQP(&d.Message, envelope.Properties{
		MessageID: raw.MessageId, Type: raw.Type, ContentType: raw.ContentType, ContentEncoding: raw.ContentEncoding,
		CorrelationID: raw.CorrelationId, ReplyTo: raw.ReplyTo, Expiration: raw.Expiration, Timestamp: raw.Timestamp, Priority: raw.Priority,
		Headers: headersFrom(l.sent(raw.Headers)),
	})
	d.Err = err
	d.Attempt = max(meta.Attempt, 1)
	if raw.UserId != "" { // the broker lets nobody claim another's name
		d.Peer = &stagebus.Peer{User: raw.UserId}
	}
	return arrival{l, arrived{raw, d.Attempt}, d}
}

// sent returns the headers without those that the broker added on the way: what it counts, and the marks of our own retry queues. The marks of
// other dead lettering stay: they say where a message comes from.
func (l *lane) sent(headers amqp091.Table) amqp091.Table {
	ours := false
	if first, ok := headers["x-first-death-queue"].(string); ok {
		ours = l.place.group == "" || strings.HasPrefix(first, stagebus.RetryTopic(l.place.topic, l.place.group))
	}
	drop := func(name string, _ any) bool { return counted(name) || ours && deathMark(name) }
	for name, v := range headers {
		if drop(name, v) {
			kept := maps.Clone(headers) // the original stays as it came, for a dead letter
			maps.DeleteFunc(kept, drop)
			return kept
		}
	}
	return headers
}

func counted(name string) bool { return name == "x-delivery-count" || name == "x-acquired-count" }

func deathMark(name string) bool {
	return name == "x-death" || strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// backoffMissing is how far apart looks for a missing queue get.
const backoffMissing = 2 * time.Second
