package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/stagebus/stagebus"
)

// ErrDrain says that the stage's drain time was over before all that ran had ended and was settled. The rest was given back and comes again;
// some of its outputs may have been sent. Give the stage a longer Drain, or have its handlers end when their context does.
var ErrDrain = errors.New("the drain time is over")

// PanicError is how [Run] ends when a handler panics, or ends its goroutine. The input was given back: it comes again.
type PanicError struct {
	Topic    string
	Position stagebus.Position
	ID       string // of the message, if it had one
	Value    any    // what the handler panicked with
	Where    string // function, file and line
	Stack    []byte
}

func (e *PanicError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the handler panicked on a message of topic %q", e.Topic)
	if e.Position.Topic != "" {
		fmt.Fprintf(&b, ", from %s partition %d", e.Position.Topic, e.Position.Partition)
		if e.Position.Offset >= 0 {
			fmt.Fprintf(&b, " offset %d", e.Position.Offset)
		}
	}
	if e.ID != "" {
		fmt.Fprintf(&b, ", ID %q", e.ID)
	}
	fmt.Fprintf(&b, ": %v", e.Value)
	if e.Where != "" {
		b.WriteString(", in " + e.Where)
	}
	b.WriteString("; the message was given back and comes again")
	return b.String()
}

// Unwrap returns what the handler panicked with, if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var errGoexit = errors.New("the handler ended its goroutine (runtime.Goexit)")

// panicked makes the error; it is called while the panic unwinds the stack.
func panicked(d *stagebus.Delivery, value any, stack []byte) *PanicError {
	return &PanicError{Topic: d.Topic, Position: d.Position, ID: d.ID, Value: value, Where: culprit(), Stack: stack}
}

// culprit is the innermost frame below the panic that isn't the runtime's.
func culprit() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for unwinding := false; ; {
		f, more := frames.Next()
		if strings.HasPrefix(f.Function, "runtime.") {
			unwinding = unwinding || f.Function == "runtime.gopanic"
		} else if unwinding {
			return fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
		}
		if !more {
			return ""
		}
	}
}

// class is what a failure to send, or to move to retries or dead letters, means for trying again.
type class uint8

const (
	fine      class = iota
	innocent        // refused because of another: again at once
	transient       // again, for as long as it takes
	lasting         // somebody must mend something: again for a while, then the stage ends
	hopeless        // this message can never be sent
	fatal           // nothing can be sent any more
)

func classify(err error) class {
	switch {
	case err == nil:
		return fine
	case errors.Is(err, stagebus.ErrNotSent):
		return innocent
	case errors.Is(err, stagebus.ErrUncertain), errors.Is(err, stagebus.ErrUnavailable), errors.Is(err, stagebus.ErrRefused),
		errors.Is(err, context.DeadlineExceeded):
		return transient
	case errors.Is(err, stagebus.ErrInvalid), errors.Is(err, stagebus.ErrTooLarge):
		return hopeless
	case errors.Is(err, stagebus.ErrClosed):
		return fatal
	}
	return lasting
}
