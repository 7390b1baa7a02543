package stagebus

import (
	"context"
	"time"
)

// Lane is one stretch of deliveries under one ledger: a partition in one generation of a group, or a queue on one channel.
// It is implemented by a pointer, and its identity is the epoch: after a rebalance or a reconnect the same partition has
// another Lane, and settling a token of the old one is [ErrStale]. Order by key holds within a lane.
//
// All methods are safe for concurrent use.
type Lane interface {
	Info() LaneInfo
	// Draining is closed when the lane is about to end (revoked, or the consumer closes): start nothing new, settle what
	// runs. What is settled before the drain time is over still counts.
	Draining() <-chan struct{}
	// Context ends, with [ErrStale] as its cause, when nothing that belongs to the lane can be settled any more. Handlers
	// derive theirs from it, so that they don't work in vain.
	Context() context.Context
}

// LaneInfo says what a lane is. Topic is the physical one, a retry topic for example.
type LaneInfo struct {
	Topic     string
	Partition int32
	Group     string
	Epoch     int64 // generation of the group, or number of the session
}

// Token is the right to settle one delivery, once. Tokens are small, comparable and outlive nothing: they keep no body.
type Token struct {
	Lane Lane
	Seq  int64
}

// Position is the coordinate of a message: comparable, the same at each redelivery on Kafka and memory. On RabbitMQ, which
// has no coordinates outside of streams, Offset is -1 and Topic the queue.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Peer is what has been verified about a sender, by the broker or by a layer; never taken from headers.
type Peer struct {
	User   string // the broker's word
	Signer string // who signed it
	Key    string // whose key it was encrypted with
}

// Delivery is a received message with the right to settle it.
type Delivery struct {
	Message
	Token    Token
	Position Position
	// Attempt counts from 1; each [Retry] adds one, a [Release] or a crash need not. 0: the broker doesn't say.
	Attempt int
	// Redelivered says that this message may have been delivered before. It is set at every redelivery that the broker
	// marks; after a crash or a rebalance on Kafka nobody marks them.
	Redelivered bool
	Peer        *Peer
	// Err says that a layer could not verify or decode this one. Message is as that layer got it, the rest of the batch
	// goes on, and this delivery must be settled like any other, normally with [Reject].
	Err error
}

// Kind is what to do with a delivery.
type Kind uint8

// The kinds of a [Verdict].
const (
	KindRelease Kind = iota
	KindDone
	KindRetry
	KindReject
)

// Verdict ends a delivery. The zero value is [Release], so that a forgotten verdict loses nothing.
type Verdict struct {
	Kind   Kind
	After  time.Duration
	Reason string
}

var (
	// Done settles: the message was handled and doesn't come again.
	Done = Verdict{Kind: KindDone}
	// Release gives the message back at once, to any member of the group, without counting an attempt.
	Release = Verdict{Kind: KindRelease}
)

// Retry has the message delivered again with the next Attempt, not before the time given. The delay is rounded up to the
// steps of a ladder (1, 2, 5, 10, 20, 50… from 100 ms to 24 h), and the order of its key is given up.
func Retry(after time.Duration) Verdict { return Verdict{Kind: KindRetry, After: after} }

// Reject moves the message to [DeadLetterTopic] with the reason, the origin and the attempt in its headers
// ([HeaderDeadReason] and the following), its body and other headers exactly as received.
func Reject(reason string) Verdict { return Verdict{Kind: KindReject, Reason: reason} }

// The headers that a dead letter carries beside its own. Reasons are cut at 1 KiB.
const (
	HeaderDeadReason    = "stagebus-dead-reason"
	HeaderDeadTopic     = "stagebus-dead-topic"     // the topic it came from, as the consumer named it
	HeaderDeadPartition = "stagebus-dead-partition" // decimal
	HeaderDeadOffset    = "stagebus-dead-offset"    // decimal, -1 on RabbitMQ
	HeaderDeadGroup     = "stagebus-dead-group"
	HeaderDeadAttempt   = "stagebus-dead-attempt" // the attempt that was rejected
	HeaderDeadTime      = "stagebus-dead-time"    // RFC 3339
)

// Outcome is what became of one submitted message.
type Outcome struct {
	// Position is where it is now; Offset is -1 where the broker doesn't say (RabbitMQ).
	Position Position
	// Err is nil (durable), [ErrUncertain] (it may or may not have arrived), or definite: it isn't there.
	Err error
}
