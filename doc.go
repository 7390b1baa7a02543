// Package stagebus is one producer and consumer interface over RabbitMQ, Kafka and memory, made for the stages of an LLM
// system (preprocess, train, infer, post-process) that exchange training data, model parameters and inference results
// over the brokers a team already runs.
//
// A [Broker] comes from an adapter: adapters.Open takes a URL, memory.New needs none. It opens a [Producer] and a
// [Consumer], two small batch interfaces that adapters implement and [Middleware] wraps. [Send], [All] and [Batcher] are
// the convenient forms on top of them: whole messages in, a range loop out.
//
// The guarantees are the same on every broker unless [Capabilities] says otherwise: a message whose [Outcome] carries no
// error is durable; a delivery comes again until it is settled with [Done], [Retry] or [Reject]; duplicates follow only from
// [ErrUncertain] or from a redelivery; messages of one key keep their order within a lane (see [Lane]).
//
// The package uses the standard library only. It starts no goroutine on its own except where a type says so, reads no
// environment, and logs nothing: what an adapter notices goes to a [Hook].
package stagebus
