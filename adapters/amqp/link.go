package amqp

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// link keeps one session after the other to the broker. The first is opened by whoever needs it, without retrying, so that a
// wrong address is known at once; from then on the link mends what breaks, for ever.
type link struct {
	config  *config
	dialing chan struct{} // holds a token while somebody opens the first session
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup

	mu      sync.Mutex // protects the following
	current *session
	failure error         // why there is none
	changed chan struct{} // closed, and replaced, when current or failure changes
	running bool
}

func newLink(c *config) *link {
	l := &link{config: c, dialing: make(chan struct{}, 1), changed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// open returns the session, and opens the first one. Without one it fails within ctx or the connect time-out, whichever ends first.
func (l *link) open(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.ConnectTimeout)
	defer cancel()
	stop := context.AfterFunc(l.ctx, cancel)
	defer stop()
	select {
	case l.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, l.unavailable(ctx)
	}
	release := sync.OnceFunc(func() { <-l.dialing })
	defer release()
	l.mu.Lock()
	current, running := l.current, l.running
	l.mu.Unlock()
	if current != nil && current.alive() {
		return current, nil
	}
	if running {
		release()
		return l.wait(ctx)
	}
	s, err := l.dial(ctx)
	if err != nil {
		if l.ctx.Err() != nil {
			err = context.Cause(l.ctx)
		}
		return nil, l.config.fail("connect", "", nil, err, "")
	}
	l.mu.Lock()
	if l.ctx.Err() != nil { // closed meanwhile: nobody would end it
		l.mu.Unlock()
		s.close(ctx)
		return nil, l.unavailable(ctx)
	}
	l.running = true
	l.wg.Go(func() { l.supervise(s) })
	l.mu.Unlock()
	l.set(s, nil)
	return s, nil
}

// wait returns the session once there is one, or an error when ctx ends.
func (l *link) wait(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, changed := l.current, l.changed
		l.mu.Unlock()
		if s != nil && s.alive() {
			return s, nil
		}
		if s != nil {
			select { // the supervisor is about to notice
			case <-changed:
				continue
			case <-ctx.Done():
			case <-l.ctx.Done():
			}
			return nil, l.unavailable(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, l.unavailable(ctx)
		case <-l.ctx.Done():
			return nil, l.unavailable(ctx)
		}
	}
}

// unavailable says that ctx, or the link, ended without a session, and why there was none.
func (l *link) unavailable(ctx context.Context) error {
	if l.ctx.Err() != nil {
		return l.config.fail("connect", "", stagebus.ErrClosed, nil, "")
	}
	l.mu.Lock()
	failure := l.failure
	l.mu.Unlock()
	if failure != nil {
		do, kind := classify(failure)
		return l.config.fail("connect", "", kind, errors.Join(context.Cause(ctx), failure), do)
	}
	return l.config.fail("connect", "", nil, context.Cause(ctx), "")
}

// broken returns why there is no session, or nil if there is one.
func (l *link) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil && l.current.alive() {
		return nil
	}
	if l.failure == nil {
		return errors.New("not connected")
	}
	return l.failure
}

// blocked returns why the broker takes no messages, or nil.
func (l *link) blocked() error {
	l.mu.Lock()
	s := l.current
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.blocked()
}

func (l *link) set(s *session, failure error) {
	l.mu.Lock()
	l.current, l.failure = s, failure
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if s != nil {
		l.config.emit(stagebus.Event{Kind: stagebus.EventConnected, N: s.epoch})
	}
}

// supervise replaces sessions that are lost, until the link closes.
func (l *link) supervise(s *session) {
	for {
		select {
		case <-s.done:
		case <-l.ctx.Done():
			return // close ends the session
		}
		s.wg.Wait()
		l.set(nil, s.err)
		l.config.emit(stagebus.Event{Kind: stagebus.EventDisconnected, N: s.epoch, Err: s.err})
		var pause backoff
		for {
			if !pause.sleep(l.ctx) {
				return
			}
			ctx, cancel := context.WithTimeout(l.ctx, l.config.ConnectTimeout)
			next, err := l.dial(ctx)
			cancel()
			if err == nil {
				s = next
				break
			}
			if l.ctx.Err() != nil {
				return
			}
			l.set(nil, err)
			l.config.emit(stagebus.Event{Kind: stagebus.EventError, Err: l.config.fail("connect", "", nil, err, "")})
		}
		l.set(s, nil)
	}
}

// dial tries the addresses in random order, each with its share of the time.
func (l *link) dial(ctx context.Context) (*session, error) {
	addresses := slices.Clone(l.config.Addresses)
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	var errs []error
	for i, address := range addresses {
		one, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			share := time.Until(deadline) / time.Duration(len(addresses)-i)
			one, cancel = context.WithTimeout(ctx, share)
		}
		s, err := l.config.dial(one, address)
		cancel()
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

// close ends the link and its session. Whoever used it was closed before.
func (l *link) close(ctx context.Context) {
	l.mu.Lock()
	l.cancel(stagebus.ErrClosed) // under the lock: open starts no supervisor from here on
	l.mu.Unlock()
	l.wg.Wait()
	l.mu.Lock()
	s := l.current
	l.mu.Unlock()
	if s != nil {
		s.close(ctx)
	}
}

// backoff spaces attempts: twice as far each time, up to a limit, at a random point of that span, so that many clients of
// one broker don't come back at the same moment.
type backoff struct {
	n     int
	limit time.Duration // 0: backoffLast
}

const (
	backoffFirst = 200 * time.Millisecond
	backoffLast  = 10 * time.Second
)

// sleep waits for the next attempt, and returns false if ctx ended.
func (b *backoff) sleep(ctx context.Context) bool {
	t := time.NewTimer(rand.N(b.span()))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// span is how long the next sleep may take.
func (b *backoff) span() time.Duration {
	span := backoffLast
	if b.limit > 0 {
		span = b.limit
	}
	if b.n < 8 {
		span = min(span, backoffFirst<<b.n)
		b.n++
	}
	return span
}
