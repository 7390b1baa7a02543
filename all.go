package stagebus

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Item is one delivery of a loop over [All]. It is not safe for concurrent use.
type Item struct {
	Delivery
	ctx     context.Context
	c       Consumer
	settled bool
}

// Done settles the item now, with [Done]; a loop that is about to end needs it, since break gives the item back.
func (i *Item) Done() error { return i.settle(Done) }

// Retry settles the item with [Retry]. The loop goes on.
func (i *Item) Retry(after time.Duration) error { return i.settle(Retry(after)) }

// Reject settles the item with [Reject]. The loop goes on.
func (i *Item) Reject(reason string) error { return i.settle(Reject(reason)) }

func (i *Item) settle(v Verdict) error {
	if i.settled {
		return ErrStale
	}
	err := i.c.Settle(i.ctx, v, i.Token)
	i.settled = err == nil
	return err
}

// All ranges over the deliveries of c, one at a time:
//
//	for item, err := range stagebus.All(ctx, c) {
//		if err != nil { return err }
//		if err := handle(item.Message); err != nil { item.Retry(time.Second) }
//	}
//
// Going to the next item settles this one with [Done], unless its own Done, Retry or Reject did. One whose Err is set, and that
// the loop didn't settle, is rejected with that reason: released, it would come again for ever. Break, return and panic give
// the item back with [Release]. An error ends the loop: nil, err is the last pair. A closed consumer ends it without one.
//
// All receives one message ahead at most, so that a break gives back everything; use Receive for batches.
func All(ctx context.Context, c Consumer) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		var dst [1]Delivery
		for {
			_, err := c.Receive(ctx, dst[:])
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			more, err := visit(ctx, c, dst[0], yield)
			if !more {
				return // after a break nothing can be yielded: what could not be given back comes again anyway
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// visit runs the loop's body on one delivery and settles it, also when the body panics.
func visit(ctx context.Context, c Consumer, d Delivery, yield func(*Item, error) bool) (more bool, err error) {
	item := &Item{Delivery: d, ctx: ctx, c: c}
	finished := false
	defer func() {
		if item.settled {
			return
		}
		v := Release
		switch {
		case !finished || !more:
		case item.Err != nil:
			v = Reject(item.Err.Error())
		default:
			v = Done
		}
		// A stale token is no error of the loop: the message comes again, to whoever holds its lane now.
		if e := c.Settle(context.WithoutCancel(ctx), v, d.Token); e != nil && !errors.Is(e, ErrStale) {
			err = errors.Join(err, e)
		}
	}()
	more = yield(item, nil)
	finished = true
	return more, nil
}
