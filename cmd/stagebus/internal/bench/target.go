package bench

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
)

// The kinds of brokers.
const (
	RabbitMQ = "rabbitmq"
	Kafka    = "kafka"
	Memory   = "memory"
)

// Target is a broker to measure. Durability Safe means quorum queues, persistent and confirmed (RabbitMQ), and acks=all (Kafka); Unsafe
// means classic queues and transient messages, and acks=1. A RabbitMQ URL with queue_type decides the type of the queue in both cases.
type Target struct {
	b         *stagebus.Broker
	url       string
	kind      string
	queueType string // of topics that are made here
	explicit  bool   // the URL names it
}

// NewTarget returns the target that a URL names, opened by the caller, who also closes it.
func NewTarget(raw string, b *stagebus.Broker) (*Target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("not a URL") // whose text would be in err
	}
	t := &Target{b: b, url: shown(u)}
	switch u.Scheme {
	case "amqp", "amqps":
		t.kind = RabbitMQ
		t.queueType = u.Query().Get("queue_type")
		t.explicit = t.queueType != ""
	case "kafka", "kafkas":
		t.kind = Kafka
	default:
		t.kind = Memory
	}
	return t, nil
}

// shown is what of a URL tells brokers apart, without what logs in.
func shown(u *url.URL) string {
	s := u.Scheme + "://" + u.Host + u.EscapedPath()
	var kept []string
	for _, name := range []string{"exchange", "max_message", "partitions", "queue_type"} {
		for _, v := range u.Query()[name] {
			kept = append(kept, name+"="+url.QueryEscape(v))
		}
	}
	slices.Sort(kept)
	if len(kept) > 0 {
		s += "?" + strings.Join(kept, "&")
	}
	return s
}

// queues is the type of queues that topics get.
func (t *Target) queues(d Durability) string {
	switch {
	case t.explicit:
		return t.queueType
	case d == Unsafe:
		return "classic"
	}
	return "quorum"
}

// describe fills in what a report says.
func (t *Target) describe(s Settings) Broker {
	b := Broker{URL: t.url, Kind: t.kind, Storage: "topic " + s.Topic + " as it is"}
	if v, ok := t.b.Driver().(interface{ Server() string }); ok {
		b.Server = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' { // a server may say anything
				return -1
			}
			return r
		}, v.Server())
	}
	switch t.kind {
	case RabbitMQ:
		b.Durability = "persistent, mandatory, confirmed"
		if s.Durability == Unsafe {
			b.Durability = "transient messages: a restart of the broker loses them"
		}
		if s.Topic == "" {
			b.Storage = t.queues(s.Durability) + " queue"
		}
	case Kafka:
		b.Server = "Kafka" // the protocol doesn't tell the version
		b.Durability = "acks=all"
		if s.Durability == Unsafe {
			b.Durability = "acks=1: a failure of the leader loses messages that were confirmed"
		}
	default:
		b.Server, b.Durability = "memory, in this process", "none"
	}
	if s.Topic == "" && t.b.Capabilities().Partitions {
		b.Storage = fmt.Sprintf("%d partitions", s.Parts)
	}
	return b
}

// declare makes a topic of ours.
func (t *Target) declare(ctx context.Context, s Settings, name string) error {
	spec := stagebus.TopicSpec{Name: name}
	if t.b.Capabilities().Partitions {
		spec.Partitions = s.Parts
	}
	if t.kind == RabbitMQ {
		spec.Native = amqp.TopicSpec{QueueType: t.queues(s.Durability)}
	}
	return t.b.Admin().Declare(ctx, spec)
}

// group is the consumer group for a topic. Where a new group sees what was sent before it, it is one of our own: members of others must not be
// disturbed by ours joining. On RabbitMQ the default group's queue takes the messages in any case, and a second would double the work.
func (t *Target) group(name string) string {
	if !t.b.Capabilities().History {
		return ""
	}
	return name
}

func (t *Target) producer(ctx context.Context, s Settings) (stagebus.Producer, error) {
	o := stagebus.ProducerOptions{Window: s.Window}
	if s.Durability == Unsafe {
		switch t.kind {
		case RabbitMQ:
			o.Native = amqp.ProducerOptions{UnsafeTransient: true}
		case Kafka:
			o.Native = kafka.ProducerOptions{UnsafeLeaderOnly: true}
		}
	}
	return t.b.Producer(ctx, o)
}

// consumer opens one that gets what is sent from now on. Of a topic that was given it is a private copy, which leaves nothing behind.
func (t *Target) consumer(ctx context.Context, s Settings, topic, group string) (stagebus.Consumer, error) {
	o := stagebus.ConsumerOptions{Topics: []string{topic}, Group: group, Prefetch: s.Prefetch}
	if topic == s.Topic {
		o.Mode, o.Group = stagebus.Ephemeral, ""
	}
	return t.b.Consumer(ctx, o)
}
