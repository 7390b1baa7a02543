package kafka

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// consumer holds the lanes that a group, or a list of partitions, gives it. Three kinds of goroutines work on it: one that
// owns the set of lanes (member.run or solo.run), one that plans fetches, and one for each fetch under way.
type consumer struct {
	client *client
	d      *directory
	o      stagebus.ConsumerOptions
	n      ConsumerOptions
	group  string            // empty without one
	names  map[string]string // Kafka's name of each topic to the user's
	copies *producer         // writes to retry topics and dead letters
	source fetcher
	limit  int // of one answer, and of one decompressed batch

	ctx     context.Context // ends when the consumer has ended
	stop    context.CancelFunc
	closing chan struct{} // closed by Close: drain and leave
	hurry   chan struct{} // closed when Close's context ends: leave without waiting
	done    chan struct{} // closed when the owner of the lanes has left
	wg      sync.WaitGroup
	flushes chan chan error
	rescans chan struct{} // look at the metadata now
	kicks   chan struct{} // plan fetches now

	mu        sync.Mutex // protects the following, and the lanes'
	lanes     []*lane
	turn      int           // the lane to begin with
	asked     int           // the lane to begin with when fetches are planned
	changed   chan struct{} // closed and replaced when a wait for deliveries, or for the end of them, should look again
	held      int
	heldBytes int
	pinned    int // bytes of fetched memory
	wanted    int // bytes asked for by fetches under way
	fetches   map[int32]int
	unknown   map[string]int  // how often in a row the cluster didn't know a topic
	returned  map[string]bool // topics that vanished and came back
	closed    bool
	fatal     error
	timer     *time.Timer
	timerAt   time.Time
	events    []stagebus.Event
}

func newConsumer(c *client, d *directory, o stagebus.ConsumerOptions, n ConsumerOptions, names map[string]string, maxMessage int) *consumer {
	ctx, stop := context.WithCancel(context.Background())
	limit := max(100<<20, 2*maxMessage)
	window := stagebus.ProducerOptions{Window: 1024, WindowBytes: 16 << 20, Timeout: 30 * time.Second}
	cs := &consumer{
		client: c, d: d, o: o, n: n, group: o.Group, names: names,
		copies: newProducer(c, d, window, ProducerOptions{BatchBytes: min(1_000_000, maxMessage)}),
		source: &leaderFetcher{c: c, limit: limit}, limit: limit,
		ctx: ctx, stop: stop,
		closing: make(chan struct{}), hurry: make(chan struct{}), done: make(chan struct{}),
		flushes: make(chan chan error), rescans: make(chan struct{}, 1), kicks: make(chan struct{}, 1),
		changed: make(chan struct{}), fetches: map[int32]int{}, unknown: map[string]int{}, returned: map[string]bool{},
	}
	cs.wg.Go(cs.fetchLoop)
	return cs
}

// unlock also tells the hook what happened under the lock, for a hook may call back.
func (c *consumer) unlock() {
	events := c.events
	c.events = nil
	c.mu.Unlock()
	for _, e := range events {
		c.client.emit(e)
	}
}

// note has an event emitted when the lock is given back.
func (c *consumer) note(e stagebus.Event) { c.events = append(c.events, e) }

// wake makes everyone who waits for a change look again.
func (c *consumer) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consumer) kickFetch() { poke(c.kicks) }
func (c *consumer) rescan()    { poke(c.rescans) }

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Receive implements [stagebus.Consumer].
func (c *consumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		c.mu.Lock()
		var n int
		var err error
		switch {
		case c.closed:
			err = io.EOF
		case c.fatal != nil:
			err = c.fatal
		default:
			n = c.take(dst)
		}
		changed := c.changed
		c.unlock()
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// take fills dst with what is due, beginning with another lane each time, within the bounds of prefetch.
func (c *consumer) take(dst []stagebus.Delivery) (n int) {
	now := time.Now()
	var look time.Time
	room := func(size int) bool {
		return c.held < c.o.Prefetch && (c.held == 0 || c.heldBytes+size <= c.o.PrefetchBytes)
	}
	c.turn++
	for i := range c.lanes {
		l := c.lanes[(c.turn+i)%len(c.lanes)]
		for n < len(dst) && c.held < c.o.Prefetch {
			d, ok, at := l.next(now, room)
			if !at.IsZero() {
				look = earliest(look, at)
			}
			if !ok {
				break
			}
			dst[n] = d
			n++
		}
	}
	if !look.IsZero() {
		c.lookAt(look)
	}
	return n
}

// lookAt wakes receivers and the planner at that time.
func (c *consumer) lookAt(at time.Time) {
	if c.timer != nil && !c.timerAt.IsZero() && !at.Before(c.timerAt) {
		return
	}
	c.timerAt = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.tick)
		return
	}
	c.timer.Reset(time.Until(at))
}

func (c *consumer) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timerAt = time.Time{}
	c.wake()
	c.kickFetch()
}

// newLane makes a lane that begins at an offset; committed is what the broker knows, or -1.
func (c *consumer) newLane(at place, source string, origin int32, retry bool, epoch, start, committed int64) *lane {
	l := &lane{
		c: c, source: source, origin: origin, retry: retry, ledger: ledger.New[*pinned](), drain: make(chan struct{}),
		info: stagebus.LaneInfo{Topic: at.topic, Partition: at.partition, Group: c.group, Epoch: epoch},
		pos:  start, start: start, committed: committed,
		trouble: backoff{min: 100 * time.Millisecond, max: 10 * time.Second},
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// addLanes begins lanes.
func (c *consumer) addLanes(ls []*lane) {
	if len(ls) == 0 {
		return
	}
	c.mu.Lock()
	defer c.unlock()
	for _, l := range ls {
		c.lanes = append(c.lanes, l)
		c.note(stagebus.Event{Kind: stagebus.EventAssigned, Topic: l.info.Topic, Partition: l.info.Partition, Group: c.group, N: l.info.Epoch})
	}
	c.wake()
	c.kickFetch()
}

// drainLanes stops the deliveries of lanes and tells their handlers.
func (c *consumer) drainLanes(ls []*lane) {
	c.mu.Lock()
	defer c.unlock()
	for _, l := range ls {
		l.remnant = false
		if !l.draining {
			l.draining = true
			close(l.drain)
			l.dropReader()
		}
	}
	c.wake()
}

// sealLanes ends lanes for good.
func (c *consumer) sealLanes(ls []*lane, why error) {
	c.drainLanes(ls)
	c.mu.Lock()
	defer c.unlock()
	for _, l := range ls {
		if l.sealed {
			continue
		}
		l.ledger.Seal()
		c.held -= l.held
		c.heldBytes -= l.heldBytes
		c.pinned -= l.pinned
		l.held, l.heldBytes, l.pinned, l.again, l.sealed = 0, 0, 0, nil, true
		l.cancel(stagebus.ErrStale)
		c.note(stagebus.Event{Kind: stagebus.EventRevoked, Topic: l.info.Topic, Partition: l.info.Partition, Group: c.group, N: l.info.Epoch, Err: why})
		for i, x := range c.lanes {
			if x == l {
				c.lanes = append(c.lanes[:i:i], c.lanes[i+1:]...)
				break
			}
		}
	}
	c.wake()
	c.kickFetch()
}

// current returns the lanes that haven't ended.
func (c *consumer) current() []*lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*lane(nil), c.lanes...)
}

// fail ends the consumer with an error that it can't mend.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	defer c.unlock()
	c.fatal = err
	c.note(stagebus.Event{Kind: stagebus.EventError, Group: c.group, Err: err})
	c.wake()
}

// Flush implements [stagebus.Consumer].
func (c *consumer) Flush(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case c.flushes <- reply:
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.fatal // without one, Close made everything known
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements [stagebus.Consumer].
func (c *consumer) Close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	if first {
		c.closed = true
		close(c.closing)
		c.wake()
	}
	c.unlock()
	if !first {
		return nil
	}
	var err error
	select {
	case <-c.done:
	case <-ctx.Done():
		err = ctx.Err()
		close(c.hurry)
		<-c.done
	}
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.unlock()
	return errors.Join(err, c.copies.Close(ctx))
}
