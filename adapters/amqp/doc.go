// Package amqp is the RabbitMQ adapter: stagebus over AMQP 0.9.1, for RabbitMQ 3.8 to 4.x with classic and quorum queues.
//
// A topic is a routing key of one durable topic exchange, "stagebus". A group is a queue: T for the default group, which is also
// where other programs find it, and T--G for group G. What exists is used as it is and never declared again, so that queues of
// other programs (pika's queue_declare('message_queue')) can be shared; "queue:NAME" names one that isn't a topic at all.
//
// # What is safe by default
//
// Messages are persistent, mandatory and confirmed: an [stagebus.Outcome] without an error means that a queue has taken the message. What
// was on its way when a connection broke is [stagebus.ErrUncertain], never a success nor a failure. Settlements belong to one
// channel of one connection: after a reconnect the old tokens are [stagebus.ErrStale], since the broker numbers deliveries anew and an old number
// would acknowledge somebody else's message.
//
// # Connections
//
// A broker has at most two: one that publishes and one that consumes, since RabbitMQ stops reading from those that publish while it is short
// of memory or disk, acknowledgements included. They are opened at first use, that once without retrying, and mended for ever after.
//
// # What RabbitMQ can't do
//
// No replay, no partitions, no offsets and no transactions: see [stagebus.Capabilities]. A group sees what was sent since its queue was
// declared. ConsumerOptions.Prefetch is divided among the topics of a consumer; PrefetchBytes bounds what Receive hands out, while what the broker
// sends ahead is bounded by the number of messages alone. Retry drops the native expiration (the Deadline stays), since the delay must not end early.
package amqp
