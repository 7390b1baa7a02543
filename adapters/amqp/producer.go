package amqp

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/internal/envelope"
)

// pipesPerProducer is how many channels a producer publishes on. More let keys pass one another while one waits.
const pipesPerProducer = 2

// producer is the stagebus.Producer over a publisher.
type producer struct {
	*publisher
	d      *driver
	create bool
	mode   uint8 // persistent, or not

	mu   sync.Mutex
	made map[string]bool // topics known to exist, if create is set
}

func (p *producer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	if p.create {
		if err := p.declare(ctx, ms); err != nil {
			return err
		}
	}
	now := time.Now()
	pubs := make([]publication, len(ms))
	var refused *stagebus.BatchError
	for i := range ms {
		m := &ms[i]
		if err := p.publication(&pubs[i], m, now); err != nil {
			if refused == nil {
				refused = &stagebus.BatchError{Errs: slices.Repeat([]error{stagebus.ErrNotSent}, len(ms))}
			}
			refused.Errs[i] = err
		}
	}
	if refused != nil {
		return refused
	}
	if !p.create {
		return p.submit(ctx, pubs, done)
	}
	return p.submit(ctx, pubs, func(os []stagebus.Outcome) {
		p.forgetMissing(pubs, os)
		done(os)
	})
}

// publication fills pub with m, or says why m can't be sent here.
func (p *producer) publication(pub *publication, m *stagebus.Message, now time.Time) error {
	if _, pinned := m.Partition.Pinned(); pinned {
		return p.config.fail("send", m.Topic, stagebus.ErrUnsupported, nil, "RabbitMQ has no partitions: leave the partition out, messages of a key keep their order")
	}
	place, err := p.config.placeOf("send", m.Topic, "")
	if err != nil {
		return err
	}
	pub.topic, pub.queue, pub.via = m.Topic, place.queue, viaExchange|direct
	if pub.twoWays = !place.foreign; place.foreign {
		pub.via = direct
	}
	pub.size, pub.lane = m.Size(), laneOf(m.Topic, m.Key)
	pub.msg = publishing(m, envelope.Meta{}, now)
	pub.msg.DeliveryMode = p.mode
	return nil
}

// publishing is m as AMQP has it, persistent.
func publishing(m *stagebus.Message, meta envelope.Meta, now time.Time) amqp091.Publishing {
	e := envelope.EncodeAMQP(m, meta, now)
	return amqp091.Publishing{
		Headers: tableFrom(e.Headers), Body: m.Body, DeliveryMode: amqp091.Persistent,
		MessageId: e.MessageID, Type: e.Type, ContentType: e.ContentType, ContentEncoding: e.ContentEncoding,
		CorrelationId: e.CorrelationID, ReplyTo: e.ReplyTo, Expiration: e.Expiration, Timestamp: e.Timestamp, Priority: e.Priority,
	}
}

// declare makes the topics of ms that aren't known to exist.
func (p *producer) declare(ctx context.Context, ms []stagebus.Message) error {
	for i := range ms {
		topic := ms[i].Topic
		p.mu.Lock()
		made := p.made[topic]
		p.mu.Unlock()
		if made {
			continue
		}
		if _, raw := stagebus.RawQueue(topic); raw {
			continue // somebody else's
		}
		place, err := p.config.placeOf("send", topic, "")
		if err != nil {
			return err
		}
		s, err := p.link.wait(ctx)
		if err != nil {
			return p.config.fail("send", topic, nil, err, "")
		}
		if err := p.d.ensure(ctx, s, place); err != nil {
			return p.config.fail("declare", topic, nil, err, "")
		}
		p.mu.Lock()
		if len(p.made) >= routesMax {
			clear(p.made)
		}
		p.made[topic] = true
		p.mu.Unlock()
	}
	return nil
}

// forgetMissing has topics declared again that were deleted meanwhile.
func (p *producer) forgetMissing(pubs []publication, os []stagebus.Outcome) {
	for i := range os {
		if os[i].Err != nil {
			p.mu.Lock()
			delete(p.made, pubs[i].topic)
			p.mu.Unlock()
		}
	}
}

func (p *producer) Close(ctx context.Context) error { return p.close(ctx) }
