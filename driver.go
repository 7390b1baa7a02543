package stagebus

import (
	"context"
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
