package stagebus

import (
	"fmt"
	"time"
)

// ProducerOptions configure a producer. The zero value is safe: durable, confirmed, bounded.
type ProducerOptions struct {
	// Window and WindowBytes bound what is on its way: 1,024 messages and 16 MiB. A message larger than WindowBytes goes alone.
	Window, WindowBytes int
	// Timeout is the delivery time-out of a Submit whose context has no deadline: 30 s.
	Timeout time.Duration
	// Create declares a missing topic at the first message to it.
	Create bool
	// Native is the typed way to what only one broker has, such as kafka.ProducerOptions; an adapter refuses another's.
	Native any
}

// Mode says how consumers share messages.
type Mode uint8

const (
	// Shared consumers of one group divide the messages among them; each group gets all.
	Shared Mode = iota
	// Ephemeral gets a private copy of what is sent from now on, and leaves nothing behind: replies, tail.
	Ephemeral
	// Assigned reads the given partitions, in no group: settling commits nothing, and a restart starts at Start again.
	Assigned
)

// StartKind is the kind of a [Start].
type StartKind uint8

// The kinds of [Start].
const (
	StartDefault StartKind = iota
	StartEarliest
	StartLatest
	StartTime
	StartOffset
)

// Start is where a group that has no position yet, or an Assigned consumer, begins. The zero value is the earliest message
// for Kafka and memory, and what is queued for RabbitMQ. Brokers without replay refuse all others but Latest with ErrUnsupported.
type Start struct {
	Kind   StartKind
	Time   time.Time // StartTime: the first message at or after it
	Offset int64     // StartOffset: from this one, in every partition
}

// ConsumerOptions configure a consumer.
type ConsumerOptions struct {
	Topics []string
	Mode   Mode
	// Group names the group of a Shared consumer; empty means [DefaultGroup].
	Group string
	// Partitions are those of an Assigned consumer, of each topic; none means all.
	Partitions []int32
	Start      Start
	// Prefetch and PrefetchBytes bound what is received and not settled: 256 messages, 64 MiB of pinned memory, at least one
	// message.
	Prefetch, PrefetchBytes int
	// KeyOrder keeps the order of a key across the members of the group (a single active consumer on RabbitMQ), or is refused.
	KeyOrder bool
	// Drain is how long handlers get to settle when their lane is revoked or the consumer closes: 10 s.
	Drain time.Duration
	// Create declares topics that don't exist, where a missing topic would be ErrNotFound.
	Create bool
	// Native is the typed way to what only one broker has, such as amqp.ConsumerOptions.
	Native any
}

func (o ProducerOptions) withDefaults() (ProducerOptions, error) {
	for _, n := range []int{o.Window, o.WindowBytes, int(o.Timeout)} {
		if n < 0 {
			return o, invalid("ProducerOptions", fmt.Sprint(n), "negative")
		}
	}
	def(&o.Window, 1024)
	def(&o.WindowBytes, 16<<20)
	def(&o.Timeout, 30*time.Second)
	return o, nil
}

func (o ConsumerOptions) withDefaults() (ConsumerOptions, error) {
	for _, n := range []int{o.Prefetch, o.PrefetchBytes, int(o.Drain)} {
		if n < 0 {
			return o, invalid("ConsumerOptions", fmt.Sprint(n), "negative")
		}
	}
	def(&o.Prefetch, 256)
	def(&o.PrefetchBytes, 64<<20)
	def(&o.Drain, 10*time.Second)
	if len(o.Topics) == 0 {
		return o, invalid("ConsumerOptions.Topics", "", "name at least one")
	}
	seen := map[string]bool{}
	for _, t := range o.Topics {
		if err := CheckTopic(t); err != nil {
			return o, err
		}
		if seen[t] {
			return o, invalid("ConsumerOptions.Topics", t, "named twice")
		}
		seen[t] = true
	}
	if err := CheckGroup(o.Group); err != nil {
		return o, err
	}
	switch {
	case o.Mode > Assigned:
		return o, invalid("ConsumerOptions.Mode", fmt.Sprint(o.Mode), "unknown")
	case o.Mode != Shared && o.Group != "":
		return o, invalid("ConsumerOptions.Group", o.Group, "only a Shared consumer has a group")
	case o.Mode != Assigned && len(o.Partitions) > 0:
		return o, invalid("ConsumerOptions.Partitions", fmt.Sprint(o.Partitions), "only an Assigned consumer names partitions")
	case o.Start.Kind > StartOffset, o.Start.Kind == StartOffset && o.Start.Offset < 0:
		return o, invalid("ConsumerOptions.Start", fmt.Sprint(o.Start), "unknown kind or negative offset")
	case o.Mode == Shared:
		o.Group = GroupName(o.Group)
	}
	return o, nil
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
