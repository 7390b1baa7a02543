package stagebus

import (
	"context"
	"time"
)

// Driver is what an adapter writes; users hold a [Broker] over it, which has validation, limits, the stack of middleware
// and the bookkeeping of Close once for all. The interface may grow: embed [UnimplementedDriver].
//
// A driver may rely on the Broker: options have their defaults filled in and are valid, messages passed to Submit are valid, not too large
// and never an empty slice, contexts of Submit have a deadline, and nothing is called after Close.
type Driver interface {
	// Producer connects if need be. It fails fast: a broker that can't be reached is ErrUnavailable within the
	// context or the adapter's connect time-out, whichever ends first.
	Producer(context.Context, ProducerOptions) (Producer, error)
	// Consumer returns positioned: what is sent after it has returned is seen (unless Start says later).
	Consumer(context.Context, ConsumerOptions) (Consumer, error)
	// Tx opens a transaction's producer and consumer, or returns ErrUnsupported.
	Tx(context.Context, ProducerOptions, ConsumerOptions) (Tx, error)
	Admin() Admin
	// Capabilities may differ by the broker's version; they are those of the newest connection, or the least before the first.
	Capabilities() Capabilities
	// Ping returns nil when the broker answers.
	Ping(context.Context) error
	// Close frees connections. Producers and consumers were closed before.
	Close(context.Context) error
}

// UnimplementedDriver answers ErrUnsupported to all, for drivers to embed.
type UnimplementedDriver struct{}

// Producer implements [Driver].
func (UnimplementedDriver) Producer(context.Context, ProducerOptions) (Producer, error) {
	return nil, ErrUnsupported
}

// Consumer implements [Driver].
func (UnimplementedDriver) Consumer(context.Context, ConsumerOptions) (Consumer, error) {
	return nil, ErrUnsupported
}

// Tx implements [Driver].
func (UnimplementedDriver) Tx(context.Context, ProducerOptions, ConsumerOptions) (Tx, error) {
	return nil, ErrUnsupported
}

// Admin implements [Driver].
func (UnimplementedDriver) Admin() Admin { return unimplementedAdmin{} }

// Capabilities implements [Driver].
func (UnimplementedDriver) Capabilities() Capabilities { return Capabilities{} }

// Ping implements [Driver].
func (UnimplementedDriver) Ping(context.Context) error { return ErrUnsupported }

// Close implements [Driver].
func (UnimplementedDriver) Close(context.Context) error { return nil }

type unimplementedAdmin struct{}

func (unimplementedAdmin) Declare(context.Context, TopicSpec) error { return ErrUnsupported }
func (unimplementedAdmin) Describe(context.Context, string) (TopicInfo, error) {
	return TopicInfo{}, ErrUnsupported
}
func (unimplementedAdmin) List(context.Context) ([]TopicInfo, error)   { return nil, ErrUnsupported }
func (unimplementedAdmin) Delete(context.Context, string) error        { return ErrUnsupported }
func (unimplementedAdmin) Purge(context.Context, string, string) error { return ErrUnsupported }

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

// Tx is a consumer and a producer whose effects become visible together: what was settled with Done, and what was submitted, since
// the last Commit or Abort. One goroutine uses it at a time.
type Tx interface {
	Producer() Producer
	Consumer() Consumer
	// Commit makes them durable as one, or returns an error and none is, except ErrUncertain.
	Commit(context.Context) error
	// Abort drops what was submitted and gives back what was settled.
	Abort(context.Context) error
	Close(context.Context) error
}

// Admin declares and inspects topics. All methods are safe for concurrent use.
type Admin interface {
	// Declare makes what is missing: the topic, and the groups' places on brokers that need them before the first
	// message. Declaring again is nil; other properties are ErrConflict.
	Declare(context.Context, TopicSpec) error
	// Describe returns ErrNotFound for a topic that doesn't exist.
	Describe(ctx context.Context, topic string) (TopicInfo, error)
	// List returns topics with what is known without asking for each; internal ones of the broker are left out.
	List(context.Context) ([]TopicInfo, error)
	// Delete removes a topic and its groups' places on the broker, but not its dead letters. ErrNotFound if there is none.
	Delete(ctx context.Context, topic string) error
	// Purge drops what a group has not settled yet (empty: [DefaultGroup]).
	Purge(ctx context.Context, topic, group string) error
}

// TopicSpec is a topic to declare.
type TopicSpec struct {
	Name       string
	Partitions int      // 0: the broker's default
	Groups     []string // besides the default group
	Capacity   int      // memory only: messages that an unread topic holds before Submit waits; 0: 65,536
	Config     map[string]string
	Native     any
}

// TopicInfo is what a broker says of a topic. Fields that it doesn't know are zero.
type TopicInfo struct {
	Name       string
	Kind       string // "topic", "classic queue", "quorum queue"…
	Partitions []PartitionInfo
	Groups     []GroupInfo
}

// PartitionInfo is one partition of a topic: First is the offset of the earliest message kept, Next that of the next one sent.
type PartitionInfo struct {
	ID          int32
	First, Next int64
}

// GroupInfo is one group of a topic: Depth is the number of messages that it has not settled (lag), Members how many consume.
type GroupInfo struct {
	Name    string
	Depth   int64
	Members int
}

// Capabilities say what a broker can't do the same way as others. The conformance suite checks each of them, true and false alike.
type Capabilities struct {
	// Replay: Start and Assigned can read again what was settled.
	Replay bool
	// History: a group that is new sees what was sent before it.
	History bool
	// Partitions: topics have several, a message can be pinned to one, and Mode Assigned exists.
	Partitions bool
	// KeyOrder: ConsumerOptions.KeyOrder can be had.
	KeyOrder bool
	// Transactions: Tx can be had.
	Transactions bool
	// Offsets: Position.Offset is known, both for outcomes and for deliveries.
	Offsets bool
	// Tombstones are told apart by the broker itself; elsewhere nil bodies travel as an attribute.
	Tombstones bool
	// MaxMessage is the largest [Message.Size] that the broker takes, in bytes; 0 is no limit.
	MaxMessage int
}

// Event is what happened inside an adapter, where middleware can't see it.
type Event struct {
	Kind      EventKind
	Broker    string // URL without credentials
	Topic     string
	Partition int32
	Group     string
	N         int64 // Lag: messages; Assigned and Revoked: the epoch; Stale: how many tokens
	Err       error // why
}

// EventKind is the kind of an [Event].
type EventKind string

// The kinds of [Event].
const (
	EventConnected    EventKind = "connected"
	EventDisconnected EventKind = "disconnected" // Err says why; the adapter is reconnecting
	EventBlocked      EventKind = "blocked"      // the broker takes no messages for now
	EventUnblocked    EventKind = "unblocked"
	EventAssigned     EventKind = "assigned" // a lane began
	EventRevoked      EventKind = "revoked"  // a lane ended
	EventStale        EventKind = "stale"    // settlements came too late
	EventLag          EventKind = "lag"
	EventMissing      EventKind = "missing" // a topic or queue vanished; the adapter waits for it
	EventError        EventKind = "error"   // something failed and is tried again
)

// Hook receives events. It is called from the adapter's goroutines, possibly concurrently, and must not block.
type Hook func(Event)

// Emit calls h unless it is nil.
func (h Hook) Emit(e Event) {
	if h != nil {
		h(e)
	}
}
