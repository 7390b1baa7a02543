package stagebus

import (
	"context"
)

// Producer sends batches. Adapters implement it, middleware wraps it, users hold it; [Send] and [Batcher] are the easy
// ways to call it. All methods are safe for concurrent use.
type Producer interface {
	// Submit appends ms behind everything accepted before and returns once all of them are in the window of messages on
	// their way; while the window is full it waits. An error means that none was accepted; a *[BatchError] then says
	// which messages are why, and [ErrNotSent] stands for the others. Otherwise done runs exactly once, from any
	// goroutine and possibly before Submit returns, with outcomes aligned with ms; it must not block or keep its slice.
	//
	// ms is not modified, and the slice is the caller's again when Submit returns. The bytes that its messages point at
	// must stay as they are until done has run, and for good where the outcome is ErrUncertain.
	//
	// ctx bounds all of it, also after Submit has returned: what is still open when it ends gets ErrUncertain if it may
	// have left, else the cause. Overlapping Submits are unordered to one another; those that follow one another keep
	// the order of each key.
	Submit(ctx context.Context, ms []Message, done func([]Outcome)) error

	// Close refuses new messages (ErrClosed), waits until everything accepted has its outcome or ctx ends (the rest is
	// then ErrUncertain), and frees what the producer holds. Closing again does nothing.
	Close(ctx context.Context) error
}

// Consumer receives batches and settles their messages one by one. All methods are safe for concurrent use.
type Consumer interface {
	// Receive waits for at least one delivery, puts what is there into dst and returns how many. It returns io.EOF once
	// the consumer is closed, the context's error when ctx ends (cancelling loses nothing), and any other error only when
	// the consumer can't go on: connection losses are mended inside. Not calling Receive pauses: at most
	// ConsumerOptions.Prefetch messages are held. dst must not be empty.
	Receive(ctx context.Context, dst []Delivery) (int, error)

	// Settle ends deliveries of this consumer with one verdict: any tokens, any order, any goroutine. Done and Release
	// never wait for the network. Retry and Reject are carried out by the adapter from the bytes that it received (never
	// from what a layer above decrypted); Settle then returns when the copy is durable, or with an error, and the
	// delivery is open as before. If any token fails, the error is a *BatchError aligned with ts: ErrStale for a token
	// of another consumer, of a lane that has ended, or settled before.
	Settle(ctx context.Context, v Verdict, ts ...Token) error

	// Flush returns when all that was settled before it is known to the broker.
	Flush(ctx context.Context) error

	// Close stops receiving (Receive returns io.EOF), marks all lanes as draining, waits for open deliveries at most
	// ConsumerOptions.Drain, makes settlements known to the broker, and gives the rest back, to be delivered again. ctx bounds
	// it. Closing again does nothing.
	Close(ctx context.Context) error
}

// Send submits ms and waits for their outcomes. Nil means that all are durable. Else the error is a *[BatchError] aligned with ms,
// or the one error that kept all of them from being accepted. It is safe for concurrent use.
//
// Sending the same messages again after [ErrUncertain] may double them: [Stamp] them first and let the receiver tell by ID.
func Send(ctx context.Context, p Producer, ms ...Message) error {
	if len(ms) == 0 {
		return nil
	}
	result := make(chan error, 1)
	err := p.Submit(ctx, ms, func(os []Outcome) { result <- outcomeError(os) })
	if err != nil {
		return err
	}
	return <-result
}

func outcomeError(os []Outcome) error {
	var be *BatchError
	for i := range os {
		if os[i].Err == nil {
			continue
		}
		if be == nil {
			be = &BatchError{Errs: make([]error, len(os))}
		}
		be.Errs[i] = os[i].Err
	}
	if be == nil {
		return nil
	}
	return be
}
