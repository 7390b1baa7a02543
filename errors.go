package stagebus

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// The kinds of failure, to be tested with errors.Is. What an adapter returns is an *[Error] that wraps one of them, with
// the cause and with what to do about it.
var (
	// ErrClosed: the producer, consumer or broker was closed by its owner. Open another.
	ErrClosed = errors.New("closed")
	// ErrUncertain: the message was on its way when the connection or the context ended; it may have arrived. Send it
	// again, with the same ID, if a duplicate is better than a loss.
	ErrUncertain = errors.New("uncertain: it may have arrived")
	// ErrNotSent: this message was fine, but another of the same Submit was refused, so none was sent.
	ErrNotSent = errors.New("not sent: another message of the same call was refused")
	// ErrStale: the token's lane has ended, or it was settled before, or it is another consumer's. The message, unless
	// settled, will be delivered again; drop the result or make it idempotent.
	ErrStale = errors.New("stale token")
	// ErrNoRoute: nothing takes messages of this topic: it doesn't exist (Kafka, memory) or no queue is bound to it
	// (RabbitMQ). Declare it, or set ProducerOptions.Create.
	ErrNoRoute = errors.New("no such topic to send to")
	// ErrNotFound: the topic, queue, group or partition doesn't exist.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge: the message or its headers are over the limit. Send a reference, or split it.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid: an argument, a name or an attribute breaks the rules. See *[InvalidError].
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: this broker, or this version of it, can't do that. See [Capabilities].
	ErrUnsupported = errors.New("unsupported")
	// ErrRefused: the broker understood and said no, for good or for now: a full queue, a policy.
	ErrRefused = errors.New("refused by the broker")
	// ErrConflict: it exists already, with other properties.
	ErrConflict = errors.New("exists with other properties")
	// ErrAuth: wrong credentials, or no permission.
	ErrAuth = errors.New("not authorised")
	// ErrUnavailable: no connection to the broker.
	ErrUnavailable = errors.New("broker unavailable")
)

// Error is a failure with its circumstances. Errors of adapters have this type.
type Error struct {
	Op     string // what was tried: "connect", "send", "consume", "declare"…
	Broker string // URL without credentials
	Topic  string // topic, queue or group concerned
	Kind   error  // one of the package's sentinels
	Cause  error  // what the client library or the broker said
	Do     string // what to do about it
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Topic != "" {
		fmt.Fprintf(&b, " %q", e.Topic)
	}
	if e.Broker != "" {
		b.WriteString(" at " + e.Broker)
	}
	if e.Kind != nil {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	if e.Do != "" {
		b.WriteString("; " + e.Do)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As both the kind and the cause.
func (e *Error) Unwrap() []error {
	var es []error
	if e.Kind != nil {
		es = append(es, e.Kind)
	}
	if e.Cause != nil {
		es = append(es, e.Cause)
	}
	return es
}

// InvalidError is an [ErrInvalid] that names the field. Value is shortened, so that it may be logged.
type InvalidError struct{ Field, Value, Reason string }

func (e *InvalidError) Error() string {
	return fmt.Sprintf("invalid %s %q: %s", e.Field, e.Value, e.Reason)
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, value, reason string) error {
	if len(value) > 64 {
		value = strings.ToValidUTF8(value[:61], "") + "..."
	}
	return &InvalidError{field, value, reason}
}

// BatchError says which messages or tokens of one call failed: Errs has an entry for each, nil for those that didn't.
type BatchError struct{ Errs []error }

func (e *BatchError) Error() string {
	n, at := 0, 0
	var first error
	for i, err := range e.Failed() {
		if n++; n == 1 {
			at, first = i, err
		}
	}
	switch {
	case n == 0:
		return "no failure"
	case len(e.Errs) == 1:
		return first.Error()
	}
	return fmt.Sprintf("%d of %d failed, the first at %d: %v", n, len(e.Errs), at, first)
}

// Failed yields the index and the error of each that failed.
func (e *BatchError) Failed() iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i, err := range e.Errs {
			if err != nil && !yield(i, err) {
				return
			}
		}
	}
}

// Unwrap lets errors.Is find any failure of the batch.
func (e *BatchError) Unwrap() []error {
	var es []error
	for _, err := range e.Failed() {
		es = append(es, err)
	}
	return es
}
