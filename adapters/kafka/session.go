package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// recommit is how often offsets that haven't moved are committed again. Brokers forget those of topics that a group isn't
// subscribed to, which retry topics are, after days without a commit.
const recommit = time.Hour

// run is the owner of a group member's lanes: it joins, lets the lanes work until the group changes, lets them drain, commits, and
// joins again. It reports to ready when the first lanes are positioned.
func (m *member) run(ready chan<- error) {
	c := m.c
	defer close(c.done)
	report := func(err error) {
		if ready != nil {
			ready <- err
			ready = nil
		}
	}
	ctx, cancel := c.untilClosing()
	defer cancel()
	b := backoff{min: 50 * time.Millisecond, max: 5 * time.Second}
	for {
		owned, err := m.join(ctx)
		if err == nil {
			err = m.generation(ctx, owned, func() { report(nil); b.reset() })
		}
		if closing(c) {
			c.sealLanes(c.current(), stagebus.ErrClosed)
			leaving, cancel := c.untilHurried(2 * time.Second)
			m.leave(leaving)
			cancel()
			report(stagebus.ErrClosed)
			return
		}
		if fatal(err) {
			c.sealLanes(c.current(), err)
			err = c.client.fail("consume", m.k.group, err)
			report(err)
			c.fail(err)
			return
		}
		if err != nil {
			c.event(err)
			if b.wait(ctx) != nil {
				continue // closing
			}
		}
	}
}

// untilClosing is a context that ends when the consumer is told to close.
func (c *consumer) untilClosing() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c.closing:
			cancel(stagebus.ErrClosed)
		case <-stop:
		}
	})
	return ctx, func() {
		close(stop)
		wg.Wait()
		cancel(nil)
	}
}

func closing(c *consumer) bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// fatal says that joining again makes no sense.
func fatal(err error) bool {
	var code kgo.Error
	if errors.Is(err, stagebus.ErrInvalid) {
		return true
	}
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kgo.FencedInstanceID, kgo.InconsistentGroupProtocol, kgo.InvalidSessionTimeout, kgo.InvalidGroupId,
		kgo.GroupAuthorizationFailed, kgo.TopicAuthorizationFailed, kgo.ClusterAuthorizationFailed, kgo.UnsupportedVersion,
		kgo.SASLAuthenticationFailed:
		return true
	}
	return false
}

// pulse is the heartbeat of one generation.
type pulse struct {
	rebalance chan struct{} // closed when the group wants to divide anew
	lost      chan struct{} // closed when the member is in the group no longer
	err       error         // why, set before lost is closed
}

// beat sends heartbeats until ctx ends or the membership does.
func (m *member) beat(ctx context.Context, who identity, p *pulse) {
	n := &m.c.n
	t := time.NewTicker(n.HeartbeatInterval)
	defer t.Stop()
	heard := time.Now()
	asked := false
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		one, cancel := context.WithTimeout(ctx, max(n.SessionTimeout/3, n.HeartbeatInterval))
		err := m.k.heartbeat(one, who)
		cancel()
		var code kgo.Error
		errors.As(err, &code)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			heard = time.Now()
		case code == kgo.RebalanceInProgress:
			heard = time.Now()
			if !asked {
				asked = true
				close(p.rebalance)
			}
		case lost(code):
			p.err = err
			close(p.lost)
			return
		case time.Since(heard) > n.SessionTimeout:
			// The broker has given the partitions away by now, whether it could tell or not.
			p.err = errors.Join(errors.New("no heartbeat arrived for the session's time-out"), err)
			close(p.lost)
			return
		}
	}
}

// generation works with what one rebalance gave until the next one, and returns nil to join again. The lanes have ended then.
func (m *member) generation(ctx context.Context, owned map[string][]int32, positioned func()) error {
	c := m.c
	p := &pulse{rebalance: make(chan struct{}), lost: make(chan struct{})}
	beating, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	who := m.who // evicted changes it
	wg.Go(func() { m.beat(beating, who, p) })
	defer wg.Wait()
	defer stop()

	m.owned = owned
	m.retain()
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { // a generation that ends meanwhile needs no positions
		select {
		case <-p.lost:
		case <-p.rebalance:
		case <-opening.Done():
		}
		cancel()
	})
	lanes, err := m.open(opening, m.places(owned))
	if err == nil {
		lanes2, e := m.openRetries(opening)
		lanes, err = append(lanes, lanes2...), e
	}
	if err != nil {
		for _, l := range lanes {
			l.cancel(stagebus.ErrStale)
		}
		select {
		case <-p.lost:
			return m.evicted(p.err)
		case <-p.rebalance:
			return nil
		default:
			return err
		}
	}
	c.addLanes(lanes)
	positioned()

	commit := time.NewTicker(c.n.CommitInterval)
	defer commit.Stop()
	look := time.NewTicker(c.n.MetadataInterval)
	defer look.Stop()
	again := time.NewTicker(recommit)
	defer again.Stop()
	for {
		why := error(nil)
		select {
		case <-ctx.Done():
			return m.end(p, stagebus.ErrClosed)
		case <-p.rebalance:
			return m.end(p, kgo.RebalanceInProgress)
		case <-p.lost:
			return m.evicted(p.err)
		case reply := <-c.flushes:
			why = m.commit(ctx, false)
			reply <- c.client.fail("flush", m.k.group, why)
		case <-commit.C:
			why = m.commit(ctx, false)
		case <-again.C:
			why = m.commit(ctx, true)
		case <-look.C:
			if m.look(ctx) {
				return m.end(p, kgo.RebalanceInProgress)
			}
		case <-c.rescans:
			if m.look(ctx) {
				return m.end(p, kgo.RebalanceInProgress)
			}
			// Whoever asks for a look may ask again at once: the broker needn't hear each of them.
			_ = sleep(ctx, 50*time.Millisecond)
		}
		var code kgo.Error
		if errors.As(why, &code) && lost(code) {
			return m.evicted(why)
		}
	}
}

// evicted ends the lanes without a commit: their partitions are others' now.
func (m *member) evicted(why error) error {
	c := m.c
	ls := c.current()
	n := c.openIn(ls)
	c.sealLanes(ls, why)
	if n > 0 {
		c.client.emit(stagebus.Event{Kind: stagebus.EventStale, Group: c.group, N: int64(n), Err: why})
	}
	m.owned = nil
	var code kgo.Error
	errors.As(why, &code)
	if code != kgo.IllegalGeneration {
		m.forget()
	}
	if code == kgo.FencedInstanceID {
		return why
	}
	return nil
}

// end lets the lanes drain, commits what was settled, and ends them. Heartbeats go on meanwhile.
func (m *member) end(p *pulse, why error) error {
	c := m.c
	ls := c.current()
	c.drainLanes(ls)
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Drain)
	defer cancel()
	hurry := c.hurry
	for waiting := true; waiting; {
		c.mu.Lock()
		held, changed := c.held, c.changed
		c.mu.Unlock()
		if held == 0 {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			waiting = false
		case <-hurry:
			waiting = false
		case <-p.lost:
			return m.evicted(p.err)
		case reply := <-c.flushes:
			reply <- c.client.fail("flush", m.k.group, m.commit(ctx, false))
		}
	}
	// The last commit is what saves work from being done twice: it may take its time, but not the group's.
	last, done := c.untilHurried(min(5*time.Second, c.client.timeout))
	defer done()
	err := retry(last, func() error { return m.commit(last, false) })
	var code kgo.Error
	if errors.As(err, &code) && lost(code) {
		return m.evicted(err)
	}
	if err != nil {
		c.event(err)
	}
	if !errors.Is(why, kgo.RebalanceInProgress) {
		c.sealLanes(ls, why)
	}
	return nil
}

// retain looks at the lanes of the last generation: those whose partition this member keeps go on as remnants, for nobody else
// can have read it; the others end. A member that missed a generation, or became another one, keeps nothing.
func (m *member) retain() {
	c := m.c
	unbroken := m.last.member == m.who.member && m.last.generation+1 == m.who.generation
	m.last = m.who
	var gone []*lane
	c.mu.Lock()
	for _, l := range c.lanes {
		name, _ := physical(l.source)
		kept := unbroken && l.info.Partition == l.origin && slices.Contains(m.owned[name], l.origin)
		if l.remnant = kept; !kept {
			gone = append(gone, l)
		}
	}
	c.mu.Unlock()
	c.sealLanes(gone, kgo.RebalanceInProgress)
}

// untilHurried is a context that ends after d, or soon after the context of Close has.
func (c *consumer) untilHurried(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c.hurry:
			_ = sleep(ctx, 250*time.Millisecond)
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(); wg.Wait() }
}

// commit makes known what has been settled since the last time, or all of it.
func (m *member) commit(ctx context.Context, all bool) error {
	c := m.c
	marks := map[place]int64{}
	moved := map[*lane]int64{}
	c.mu.Lock()
	var finished []*lane
	held := map[place]bool{}    // by an older lane of the partition with open deliveries
	for _, l := range c.lanes { // older ones come first
		at := place{l.info.Topic, l.info.Partition}
		if held[at] {
			continue
		}
		mark, _ := l.ledger.Mark()
		mark = max(mark, l.start)
		if mark != l.committed || all {
			marks[at] = mark
			moved[l] = mark
		}
		if n, _, _ := l.ledger.Open(); n > 0 {
			held[at] = true
		} else if l.remnant {
			finished = append(finished, l)
		}
	}
	c.mu.Unlock()
	defer c.sealLanes(finished, nil)
	if len(marks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.client.timeout)
	defer cancel()
	if err := m.k.commit(ctx, m.who, marks); err != nil {
		if !errors.Is(err, context.Canceled) {
			c.event(err)
		}
		return err
	}
	c.mu.Lock()
	for l, mark := range moved {
		l.committed = mark
	}
	c.mu.Unlock()
	return nil
}

// event tells the hook about something that is tried again.
func (c *consumer) event(err error) {
	c.client.emit(stagebus.Event{Kind: stagebus.EventError, Group: c.group, Err: c.client.fail("consume", c.group, err)})
}

// openIn counts the deliveries that are out.
func (c *consumer) openIn(ls []*lane) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range ls {
		n += l.held
	}
	return n
}
