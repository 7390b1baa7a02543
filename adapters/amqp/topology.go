package amqp

import (
	"context"
	"errors"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// place is a queue that stands for a group of a topic.
type place struct {
	topic, group string
	queue        string
	foreign      bool   // "queue:NAME": used as it is, never declared nor bound
	queueType    string // empty: quorum where the server has it
	single       bool   // single active consumer
}

// placeOf returns where a group's messages of a topic are. Errors are ErrUnsupported and ErrInvalid.
func (c *config) placeOf(op, topic, group string) (place, error) {
	group = stagebus.GroupName(group)
	if _, kafka := stagebus.RawTopic(topic); kafka {
		return place{}, c.fail(op, topic, stagebus.ErrUnsupported, nil, "a Kafka topic by its raw name: leave out \"topic:\", or say \"queue:\" for a queue")
	}
	p := place{topic: topic, group: group, queue: topic, queueType: c.QueueType}
	if name, raw := stagebus.RawQueue(topic); raw {
		if group != stagebus.DefaultGroup {
			return place{}, c.fail(op, topic, stagebus.ErrUnsupported, nil, "a queue that others own has no groups: leave the group out")
		}
		p.queue, p.foreign = name, true
		return p, nil
	}
	if group != stagebus.DefaultGroup {
		p.queue = topic + "--" + group
	}
	return p, checkQueueName(p.queue)
}

func checkQueueName(name string) error {
	if len(name) > maxShort {
		return &stagebus.InvalidError{Field: "queue name", Value: name, Reason: "more than 255 bytes with the group: shorten the topic or the group"}
	}
	return nil
}

// inspect looks at a queue without changing it. ErrNotFound if there is none.
func (s *session) inspect(ctx context.Context, queue string) (q amqp091.Queue, err error) {
	result := make(chan amqp091.Queue, 1) // not q itself: the look may outlast this call
	err = s.scratch(ctx, func(ch *amqp091.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		result <- q
		return err
	})
	if err != nil {
		return q, err
	}
	return <-result, nil
}

// ensure makes p's queue exist: one that does is left as it is, whoever made it. Errors are plain, for the caller to wrap.
func (s *session) ensure(ctx context.Context, p place) error {
	if p.foreign {
		_, err := s.inspect(ctx, p.queue)
		return err
	}
	_, err := s.inspect(ctx, p.queue)
	if err == nil && p.single {
		err = s.checkSingle(ctx, p)
	}
	switch {
	case err == nil && p.group == stagebus.DefaultGroup:
		return nil
	case err == nil:
		// Binding again costs little, and makes up for a declaration that broke off or an exchange that was made anew: without
		// its binding a group's queue gets nothing, silently.
		return s.bindGroup(ctx, p)
	case code(err) != amqp091.NotFound:
		return err
	}
	if err := s.exchange(ctx, true); err != nil && code(err) != amqp091.AccessRefused {
		return err
	} else if err != nil && p.group != stagebus.DefaultGroup {
		return s.config.fail("declare", p.topic, stagebus.ErrAuth, err,
			"without permission for the exchange "+s.config.Exchange+" only the default group can be had")
	} else if err != nil { // the default exchange reaches the queue by its name
		return s.declare(ctx, p)
	}
	if err := s.declare(ctx, p); err != nil {
		return err
	}
	return s.bindGroup(ctx, p)
}

// bindGroup binds p's queue to its topic, and with another group's also the default group's, if that exists: from now on the exchange takes
// the topic's messages, and a queue that it doesn't know would get none of them.
func (s *session) bindGroup(ctx context.Context, p place) error {
	bind := func(queue string) error {
		return s.scratch(ctx, func(ch *amqp091.Channel) error {
			return ch.QueueBind(queue, p.topic, s.config.Exchange, false, nil)
		})
	}
	err := bind(p.queue)
	if code(err) == amqp091.NotFound { // the exchange was deleted, its bindings with it
		if err = s.exchange(ctx, true); err == nil {
			err = bind(p.queue)
		}
	}
	if err != nil || p.group == stagebus.DefaultGroup {
		return err
	}
	if _, err := s.inspect(ctx, p.topic); err != nil {
		if code(err) == amqp091.NotFound {
			return nil
		}
		return err
	}
	if err := bind(p.topic); err != nil && code(err) != amqp091.NotFound {
		return err
	}
	return nil
}

// exchange looks for the exchange of all topics, and makes it if create is set.
func (s *session) exchange(ctx context.Context, create bool) error {
	name := s.config.Exchange
	err := s.scratch(ctx, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp091.ExchangeTopic, true, false, false, false, nil)
	})
	if code(err) != amqp091.NotFound || !create {
		return err
	}
	err = s.scratch(ctx, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(name, amqp091.ExchangeTopic, true, false, false, false, nil)
	})
	if code(err) == amqp091.PreconditionFailed { // somebody else was faster, in his own way
		return s.scratch(ctx, func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclarePassive(name, amqp091.ExchangeTopic, true, false, false, false, nil)
		})
	}
	return err
}

// declare makes p's queue with the first arguments that the server takes. Somebody else's that appears meanwhile is as good.
func (s *session) declare(ctx context.Context, p place) error {
	return s.declareAny(ctx, p.queue, s.server.arguments(p))
}

func (s *session) declareAny(ctx context.Context, queue string, variants []amqp091.Table) error {
	var err error
	for _, args := range variants {
		err = s.declareAs(ctx, queue, args)
		if code(err) != amqp091.PreconditionFailed && code(err) != amqp091.NotImplemented {
			return err
		}
		// It exists with other properties, or the server, having the version, still lacks the feature.
		if _, look := s.inspect(ctx, queue); code(look) != amqp091.NotFound {
			return look
		}
	}
	return err
}

func (s *session) declareAs(ctx context.Context, queue string, args amqp091.Table) error {
	return s.scratch(ctx, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, args)
		return err
	})
}

// checkSingle returns ErrConflict unless p's queue, which exists, has a single active consumer. No request tells a queue's arguments:
// it is declared in each way in which it may have been made here, which an equal one doesn't mind, and another refuses.
func (s *session) checkSingle(ctx context.Context, p place) error {
	variants := s.server.arguments(p)
	for _, other := range []string{quorum, classic} {
		older := amqp091.Table{"x-queue-type": other, "x-single-active-consumer": true} // before an upgrade to 4.0
		variants = append(variants, older)
	}
	var err error
	for _, args := range variants {
		err = s.declareAs(ctx, p.queue, args)
		if code(err) != amqp091.PreconditionFailed {
			return err
		}
	}
	return s.config.fail("declare", p.topic, stagebus.ErrConflict, errors.Join(errNotSingle, err),
		"KeyOrder needs a queue with a single active consumer: delete the queue "+p.queue+" and let it be declared anew, or use another group")
}

var errNotSingle = errors.New("the queue exists without x-single-active-consumer, or with arguments of others")

// arguments returns the arguments to declare p's queue with, the preferred first. They are for ten years: a queue can't change them, and all that
// may change belongs into a policy.
func (s server) arguments(p place) []amqp091.Table {
	table := func(kind string) amqp091.Table {
		t := amqp091.Table{"x-queue-type": kind}
		if kind == quorum && s.deliveryLimit() {
			t["x-delivery-limit"] = int64(-1)
		}
		if p.single {
			t["x-single-active-consumer"] = true
		}
		return t
	}
	switch {
	case p.queueType == classic, p.queueType == "" && !s.quorumQueues():
		return []amqp091.Table{table(classic)}
	case p.queueType == quorum:
		return []amqp091.Table{table(quorum)}
	}
	return []amqp091.Table{table(quorum), table(classic)}
}
