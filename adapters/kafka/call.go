package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// call is one Submit until all of its messages have their outcome and have left the queues. The two differ: the end of the
// context decides the outcome of a message that is still in a request, and the request keeps its place in the window.
type call struct {
	mu       sync.Mutex
	outcomes []stagebus.Outcome
	state    []progress
	open     int // without outcome
	inside   int // in the queues
	n, bytes int // what it takes of the window
	window   *window
	deadline time.Time
	done     func([]stagebus.Outcome)
	forget   func()
	stop     func() bool
}

type progress uint8

const (
	waiting progress = iota
	onItsWay
	over
)

func newCall(n int, done func([]stagebus.Outcome)) *call {
	return &call{outcomes: make([]stagebus.Outcome, n), state: make([]progress, n), open: n, inside: n, done: done}
}

// start watches ctx.
func (c *call) start(ctx context.Context, forget func(), w *window) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget, c.window = forget, w
	c.deadline, _ = ctx.Deadline()
	c.stop = context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		c.end(&stagebus.Error{Op: "send", Kind: stagebus.ErrUncertain, Cause: cause,
			Do: "the context ended before the broker's answer"}, cause)
	})
}

// leave notes that message i goes out now. False: its outcome is known already, don't send it.
func (c *call) leave(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state[i] == over {
		return false
	}
	c.state[i] = onItsWay
	return true
}

// back notes that message i was definitely not taken and waits again.
func (c *call) back(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state[i] == onItsWay {
		c.state[i] = waiting
	}
}

// result is the outcome of message i, unless it has one.
func (c *call) result(i int, o stagebus.Outcome) {
	c.mu.Lock()
	if c.state[i] != over {
		c.state[i] = over
		c.outcomes[i] = o
		c.open--
	}
	c.finish()
}

// out notes that message i has left the queues: its place in the window is free when all have.
func (c *call) out() {
	c.mu.Lock()
	c.inside--
	free := c.inside == 0
	c.mu.Unlock()
	if free {
		c.window.leave(c.n, c.bytes)
	}
}

// end decides all that is open: uncertain for what may have left, waits for the rest (uncertain as well when nil).
func (c *call) end(uncertain, waits error) {
	c.mu.Lock()
	for i := range c.state {
		if c.state[i] == over {
			continue
		}
		err := uncertain
		if c.state[i] == waiting && waits != nil {
			err = waits
		}
		c.state[i] = over
		c.outcomes[i].Err = err
		c.outcomes[i].Position.Offset = -1
		c.open--
	}
	c.finish()
}

// finish reports once all outcomes are there. It unlocks c.
func (c *call) finish() {
	if c.open > 0 || c.done == nil {
		c.mu.Unlock()
		return
	}
	done := c.done
	c.done = nil
	c.mu.Unlock()
	c.stop()
	c.forget()
	done(c.outcomes)
}
