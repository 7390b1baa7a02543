package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/stagebus/stagebus"
)

// reader moves deliveries to standard output and settles those that are there.
type reader struct {
	c     stagebus.Consumer
	out   *printer
	end   *end // nil: follow
	limit int  // messages to print; 0: all
	dst   []stagebus.Delivery
	warn  func(format string, args ...any)
	// refused returns why nothing may come, if the broker said so meanwhile.
	refused func() error

	n        int          // messages printed
	printed  atomic.Int64 // the same, for who looks on
	why      string       // why it ended
	stale    int          // printed, but their lane had ended
	bad      int          // printed, with Delivery.Err
	firstBad error
}

// run prints until the count, the end, the time-out (0: none) or ctx's end, which is its error. errReaderLeft says that nobody reads.
func (r *reader) run(ctx context.Context, timeout time.Duration) error {
	limited := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for {
		if r.end != nil && r.end.reached() {
			r.why = "that is the end"
			return nil
		}
		dst := r.dst
		if r.limit > 0 {
			dst = dst[:min(len(dst), r.limit-r.n)]
		}
		n, err := r.receive(limited, dst)
		if n > 0 {
			if err := r.handle(ctx, dst[:n]); err != nil {
				return err
			}
			if r.limit > 0 && r.n >= r.limit {
				return nil
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case limited.Err() != nil:
			r.why = "the --timeout is over"
			return nil
		case errors.Is(err, errIdle), errors.Is(err, io.EOF):
			return r.ended()
		default:
			return err
		}
	}
}

var errIdle = errors.New("nothing came")

func (r *reader) receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	if r.end == nil {
		return r.c.Receive(ctx, dst)
	}
	idle, cancel := context.WithTimeoutCause(ctx, r.end.idle, errIdle)
	defer cancel()
	n, err := r.c.Receive(idle, dst)
	if err != nil && ctx.Err() == nil && idle.Err() != nil {
		err = errIdle
	}
	return n, err
}

// ended says why the end was taken for that. It is a failure if messages are left that the broker doesn't let us read.
func (r *reader) ended() error {
	r.why = "nothing more came for " + r.end.idle.String()
	m := r.end.missing()
	if err := r.refused(); err != nil && (m != "" || r.end.n < r.end.depth) {
		return err
	}
	if m != "" {
		r.warn("ended because nothing came for %v; not seen: %s (compacted, part of a transaction, or the broker is slow: raise --idle)", r.end.idle, m)
	}
	return nil
}

// handle prints a batch and settles it. Nothing is settled that has not been written; what could not be is given back.
func (r *reader) handle(ctx context.Context, ds []stagebus.Delivery) error {
	printed, failure := 0, error(nil)
	for printed < len(ds) && failure == nil {
		var k int
		k, failure = r.out.print(ctx, ds[printed:])
		if err := r.settle(stagebus.Done, ds[printed:printed+k]); err != nil {
			failure = errors.Join(failure, err)
		}
		for i := range ds[printed : printed+k] {
			r.count(&ds[printed+i])
		}
		printed += k
	}
	if failure == nil {
		return nil
	}
	if err := r.settle(stagebus.Release, ds[printed:]); err != nil && !errors.Is(failure, errReaderLeft) {
		return errors.Join(failure, err)
	}
	return failure
}

func (r *reader) count(d *stagebus.Delivery) {
	r.n++
	r.printed.Store(int64(r.n))
	if r.end != nil {
		r.end.saw(d)
	}
	if d.Err != nil {
		if r.bad++; r.bad == 1 {
			r.firstBad = d.Err
		}
	}
}

func (r *reader) settle(v stagebus.Verdict, ds []stagebus.Delivery) error {
	if len(ds) == 0 {
		return nil
	}
	ts := make([]stagebus.Token, len(ds))
	for i := range ds {
		ts[i] = ds[i].Token
	}
	// The bytes are out: a signal must not keep the broker from knowing.
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := r.c.Settle(ctx, v, ts...)
	var be *stagebus.BatchError
	if !errors.As(err, &be) {
		return err
	}
	for _, e := range be.Failed() {
		if !errors.Is(e, stagebus.ErrStale) {
			return err
		}
		if v.Kind == stagebus.KindDone {
			r.stale++
		}
	}
	return nil
}

// verdict turns the error of run, and what was counted, into the command's.
func (r *reader) verdict(err error) error {
	switch {
	case errors.Is(err, errReaderLeft):
		return err
	case errors.Is(err, errInterrupted) && r.limit > 0:
		r.why = errInterrupted.Error()
	case errors.Is(err, errInterrupted):
		return fmt.Errorf("%w before the end; consumed %s", errInterrupted, plural(r.n, "message"))
	case err != nil:
		return err
	case r.bad > 0:
		return fmt.Errorf("%d of %s could not be read, the first: %w", r.bad, plural(r.n, "message"), r.firstBad)
	}
	if r.n < r.limit {
		return &shortError{fmt.Sprintf("%d of %s: %s", r.n, plural(r.limit, "message"), r.why)}
	}
	return nil
}

// close makes the settlements known to the broker and gives back the rest.
func (r *reader) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return errors.Join(r.c.Flush(ctx), r.c.Close(ctx))
}
