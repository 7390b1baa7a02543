package kafka

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff waits longer each time, between half of the time and all of it, so that clients don't come back in step.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

func (b *backoff) delay() time.Duration {
	b.next = min(max(b.next*2, b.min), b.max)
	return b.next/2 + rand.N(b.next/2+1)
}

func (b *backoff) reset() { b.next = 0 }

// wait returns the cause if ctx ends first.
func (b *backoff) wait(ctx context.Context) error { return sleep(ctx, b.delay()) }

func sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
