package bench

import (
	"context"
	"sync"
	"time"
)

// gate bounds how many messages are between sending and arrival.
type gate struct {
	mu          sync.Mutex // protects the following
	used, limit int
	left        int           // messages that have given their room back
	free        chan struct{} // holds a token while there may be room
}

func newGate(limit int) *gate {
	g := &gate{limit: limit, free: make(chan struct{}, 1)}
	g.signal()
	return g
}

func (g *gate) signal() {
	select {
	case g.free <- struct{}{}:
	default:
	}
}

// enter waits for room and takes it for up to n messages. It returns how many, 0 when ctx has ended.
func (g *gate) enter(ctx context.Context, n int) int {
	for {
		select {
		case <-ctx.Done():
			return 0
		case <-g.free:
		}
		g.mu.Lock()
		n := min(n, g.limit-g.used)
		g.used += max(0, n)
		room := g.used < g.limit
		g.mu.Unlock()
		if room {
			g.signal() // for others who wait
		}
		if n > 0 {
			return n
		}
	}
}

// leave gives the room of n messages back. A message that was given up as uncertain may arrive later and then counts twice: that is bounded by
// their number.
func (g *gate) leave(n int) {
	if g == nil || n == 0 {
		return
	}
	g.mu.Lock()
	g.used = max(0, g.used-n)
	g.left += n
	g.mu.Unlock()
	g.signal()
}

// stuck waits until there was no room for so long, and none was given back; it returns false when quit is closed before.
func (g *gate) stuck(d time.Duration, quit <-chan struct{}) bool {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for before := -1; ; {
		select {
		case <-quit:
			return false
		case <-tick.C:
		}
		g.mu.Lock()
		left, full := g.left, g.used >= g.limit
		g.mu.Unlock()
		if full && left == before {
			return true
		}
		before = left
	}
}
