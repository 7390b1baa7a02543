package amqp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// pipe is one order of publishing. Its goroutine alone uses the channel that it publishes on (the library lets requests cut into a
// publication of another goroutine), over one outlet after the other.
type pipe struct {
	p    *publisher
	wake chan struct{}

	mu       sync.Mutex // protects the following
	queue    []*publication
	again    []*publication // came back and go another way, before all else
	inflight int
	flying   map[string]flight // of topics that have two routes
}

// flight is what of one topic is on its way. All of it goes the same way: those that go the other could overtake those that come back.
type flight struct {
	route routes
	n     int
}

// outlet is one channel, in confirm mode, of one session.
type outlet struct {
	s        *session
	ch       *amqp091.Channel
	returns  chan amqp091.Return
	closed   chan *amqp091.Error
	inflight chan *publication // written, in this order, to the settler
	settled  chan struct{}     // the settler has ended
	proven   atomic.Bool       // the exchange takes messages
	given    chan struct{}     // closed to give up on what isn't confirmed: everybody's time is over

	cause error // the settler's: why the channel ended
}

func (l *pipe) push(pub *publication) {
	l.mu.Lock()
	l.queue = append(l.queue, pub)
	l.mu.Unlock()
	l.signal()
}

func (l *pipe) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next takes the publication to write now, if there is one. Those that came back hold up the others until all that is on its way has
// its outcome: the order of their keys is kept. Those whose time is over are dropped.
func (l *pipe) next() *publication {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		from := &l.queue
		if len(l.again) > 0 {
			if l.inflight > 0 {
				return nil
			}
			from = &l.again
		}
		if len(*from) == 0 {
			return nil
		}
		pub := (*from)[0]
		(*from)[0] = nil
		if *from = (*from)[1:]; len(*from) == 0 {
			*from = nil // lets the array go
		}
		if !pub.late() {
			return pub
		}
		l.p.window.leave(pub.size)
	}
}

// putBack returns a publication that next gave to where it was.
func (l *pipe) putBack(pub *publication) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pub.back {
		l.again = slices.Insert(l.again, 0, pub)
	} else {
		l.queue = slices.Insert(l.queue, 0, pub)
	}
}

func (l *pipe) run() {
	var out *outlet
	defer func() { l.release(out) }()
	for l.p.ctx.Err() == nil {
		pub := l.next()
		if pub == nil {
			select {
			case <-l.wake:
			case <-l.p.ctx.Done():
			}
			continue
		}
		if out != nil && !out.usable() {
			l.release(out)
			out = nil
			l.putBack(pub) // what came back by then goes first
			continue
		}
		if out == nil {
			if out = l.open(); out == nil {
				l.putBack(pub)
				continue
			}
		}
		if !l.write(out, pub) {
			l.putBack(pub)
		}
	}
	l.drop()
}

// drop lets go of what was resolved when the publisher closed.
func (l *pipe) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pub := range slices.Concat(l.again, l.queue) {
		l.p.window.leave(pub.size)
	}
	l.again, l.queue = nil, nil
}

// open returns an outlet on the present session, or nil when that didn't work and it is worth another try.
func (l *pipe) open() *outlet {
	s, err := l.p.link.wait(l.p.ctx)
	if err != nil { // the link has closed, and the publisher is about to
		<-l.p.ctx.Done()
		return nil
	}
	if !l.pass(s) {
		return nil
	}
	out := &outlet{
		s: s, returns: make(chan amqp091.Return, 64), closed: make(chan *amqp091.Error, 1),
		inflight: make(chan *publication, min(l.p.window.size, 1024)), settled: make(chan struct{}), given: make(chan struct{}),
	}
	err = s.do(l.p.ctx, func() error {
		ch, err := s.conn.Channel()
		if err != nil {
			return err
		}
		out.ch = ch
		ch.NotifyClose(out.closed)
		ch.NotifyReturn(out.returns)
		return ch.Confirm(false)
	}, func() { _ = out.ch.Close() })
	if l.p.ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		l.p.config.emit(stagebus.Event{Kind: stagebus.EventError, Err: l.p.config.fail("send", "", nil, err, "")})
		pause := backoff{n: 1}
		pause.sleep(l.p.ctx)
		return nil
	}
	l.p.wg.Go(func() { l.settle(out) })
	return out
}

// pass waits until the broker takes messages; false: the session or the publisher ended.
func (l *pipe) pass(s *session) bool {
	select {
	case <-s.gate():
		return s.alive()
	case <-s.done:
	case <-l.p.ctx.Done():
	}
	return false
}

func (out *outlet) usable() bool {
	return out.s.alive() && !out.s.conn.IsClosed() && !out.ch.IsClosed()
}

// release ends an outlet. What is on its way then has its outcome.
func (l *pipe) release(out *outlet) {
	if out == nil {
		return
	}
	close(out.inflight)
	ctx := context.Background()
	if l.p.ctx.Err() != nil {
		ctx = l.p.goodbye
	}
	// Closing the channel ends what the settler still waits for. It goes on aside when time is over.
	if err := out.s.try(ctx, out.ch.Close, nil); err != nil && out.usable() {
		close(out.given)
	}
	<-out.settled
}

// write publishes pub by its route. False: it has not left, and must wait for another outlet.
func (l *pipe) write(out *outlet, pub *publication) bool {
	route := l.p.routes.choose(out.s, pub)
	if route == viaExchange && !out.proven.Load() {
		// The first goes alone: if there is no such exchange, or no permission for it, the channel ends, and nothing else may be on its way then.
		if !l.quiet(out) {
			return false
		}
		if !out.proven.Load() {
			err := out.s.exchange(l.p.ctx, false)
			if code(err) == amqp091.NotFound {
				l.p.routes.setMissing(out.s)
				route = direct
				if pub.via&direct == 0 {
					l.fail(pub, waiting, l.p.noRoute(pub))
					return true
				}
			}
		}
	}
	if !l.pass(out.s) || !l.takeOff(pub, route) {
		return false
	}
	if !pub.state.CompareAndSwap(waiting, leaving) {
		l.land(pub)
		l.p.window.leave(pub.size)
		return true
	}
	exchange, key := l.p.config.target(pub, route)
	confirm, err := out.ch.PublishWithDeferredConfirm(exchange, key, true, false, pub.msg)
	if errors.Is(err, amqp091.ErrClosed) {
		// Told before the last frame was written: the broker has no complete message. (An exception is another error.)
		l.land(pub)
		if pub.state.CompareAndSwap(leaving, waiting) {
			return false
		}
		l.p.window.leave(pub.size)
		return true
	}
	if err != nil {
		l.land(pub)
		l.fail(pub, leaving, l.p.uncertain(pub.topic, err))
		return true
	}
	pub.confirm = confirm
	out.inflight <- pub
	if route == viaExchange && !out.proven.Load() {
		l.quiet(out)
	}
	return true
}

// takeOff counts pub as on its way. False: others of its topic are, by another route, which has been learnt meanwhile (by another
// pipe, or forgotten); it waits until one of them has its outcome, to be asked again.
func (l *pipe) takeOff(pub *publication, route routes) bool {
	l.mu.Lock()
	f := l.flying[pub.topic]
	if pub.twoWays && f.n > 0 && f.route != route {
		l.mu.Unlock()
		select {
		case <-l.wake:
		case <-l.p.ctx.Done():
		}
		return false
	}
	defer l.mu.Unlock()
	pub.route = route
	l.inflight++
	if pub.twoWays {
		if l.flying == nil {
			l.flying = map[string]flight{}
		}
		l.flying[pub.topic] = flight{route, f.n + 1}
	}
	return true
}

// land takes pub off the count.
func (l *pipe) land(pub *publication) {
	l.mu.Lock()
	l.landed(pub)
	l.mu.Unlock()
	l.signal()
}

func (l *pipe) landed(pub *publication) {
	l.inflight--
	if !pub.twoWays {
		return
	}
	f := l.flying[pub.topic]
	if f.n--; f.n == 0 {
		delete(l.flying, pub.topic)
	} else {
		l.flying[pub.topic] = f
	}
}

// quiet waits until nothing is on its way; false: the outlet or the publisher ended first.
func (l *pipe) quiet(out *outlet) bool {
	for {
		l.mu.Lock()
		n := l.inflight
		l.mu.Unlock()
		if n == 0 {
			return out.usable()
		}
		select {
		case <-l.wake:
		case <-l.p.ctx.Done():
			return false
		}
	}
}

// settle gives the outlet's publications their outcomes, in the order in which they were written.
func (l *pipe) settle(out *outlet) {
	defer func() {
		close(out.settled)
		for range out.returns { // of what was given up: the library's reader, which all channels share, waits for whoever takes them
		}
	}()
	var returns []amqp091.Return
	for pub := range out.inflight {
		confirmed := l.confirmed(out, pub, func(r amqp091.Return) { returns = append(returns, r) })
		if !confirmed {
			l.finish(pub, l.p.uncertain(pub.topic, stagebus.ErrClosed))
			continue
		}
		exchange, key := l.p.config.target(pub, pub.route)
		back := slices.IndexFunc(returns, func(r amqp091.Return) bool { return pub.returned(&r, exchange, key) })
		switch {
		case back >= 0:
			returns = slices.Delete(returns, back, back+1)
			l.cameBack(out, pub)
		case pub.confirm.Acked():
			if pub.route == viaExchange {
				out.proven.Store(true)
			} else if pub.back {
				l.p.routes.learn(out.s, pub.topic)
			}
			l.finish(pub, nil)
		case out.ch.IsClosed():
			l.lost(out, pub)
		case pub.route == viaExchange: // of several queues one is enough to refuse it
			l.finish(pub, l.p.config.fail("send", pub.topic, stagebus.ErrUncertain, stagebus.ErrRefused,
				"a group's queue is full (its length limit) or its policy says no, other groups may have it: send it again later with the same ID"))
		default:
			l.finish(pub, l.p.config.fail("send", pub.topic, stagebus.ErrRefused, nil,
				"the queue is full (its length limit) or its policy says no: send it again later"))
		}
	}
}

// confirmed waits for the confirm of pub, or the end of its channel, and takes the returns that come before: the library's reader waits for
// that. False: it was given up.
func (l *pipe) confirmed(out *outlet, pub *publication, returned func(amqp091.Return)) bool {
	returns := out.returns
	done := false
	for {
		select {
		case r, ok := <-returns:
			if !ok { // the channel has ended
				returns = nil
				continue
			}
			returned(r)
			continue
		default:
		}
		if done { // and what came before it was taken: a return is told before the confirm of the same message
			return true
		}
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			returned(r)
		case <-pub.confirm.Done(): // also when the channel ends
			done = true
		case <-out.given:
			return false
		}
	}
}

// cameBack deals with a message that no queue took.
func (l *pipe) cameBack(out *outlet, pub *publication) {
	if pub.route == viaExchange {
		out.proven.Store(true) // it exists, and may be used
	} else {
		l.p.routes.unlearn(pub.topic)
	}
	if pub.via &^= pub.route; pub.via == 0 {
		l.finish(pub, l.p.noRoute(pub))
		return
	}
	l.repeat(pub)
}

// repeat has a message written again that is known not to have arrived.
func (l *pipe) repeat(pub *publication) {
	l.mu.Lock()
	if pub.state.CompareAndSwap(leaving, waiting) {
		pub.back = true
		l.again = append(l.again, pub)
	} else {
		l.p.window.leave(pub.size)
	}
	l.landed(pub)
	l.mu.Unlock()
	l.signal()
}

// lost deals with a message whose channel ended before its confirm.
func (l *pipe) lost(out *outlet, pub *publication) {
	alone := false
	if out.cause == nil { // the first that is lost
		l.mu.Lock()
		alone = l.inflight == 1
		l.mu.Unlock()
		out.cause = amqp091.ErrClosed
		select {
		case e := <-out.closed: // told before the confirms are given up
			if e != nil {
				out.cause = e
			}
		default:
		}
	}
	e := exception(out.cause)
	if !alone || e == nil || !out.s.alive() || out.s.conn.IsClosed() {
		l.finish(pub, l.p.uncertain(pub.topic, out.s.reason(out.cause)))
		return
	}
	// The exception answers this message, as there was no other: it isn't there.
	switch {
	case (e.Code == amqp091.NotFound || e.Code == amqp091.AccessRefused) && pub.route == viaExchange && pub.via&direct != 0:
		l.p.routes.setMissing(out.s)
		pub.via = direct
		l.repeat(pub)
	case e.Code == amqp091.PreconditionFailed:
		l.finish(pub, l.p.config.fail("send", pub.topic, stagebus.ErrRefused, e, "is it larger than the server's max_message_size?"))
	default:
		l.finish(pub, l.p.config.fail("send", pub.topic, nil, e, ""))
	}
}

func (l *pipe) finish(pub *publication, err error) {
	pub.resolve(leaving, err)
	l.p.window.leave(pub.size)
	l.land(pub)
}

// fail ends a publication that isn't on its way.
func (l *pipe) fail(pub *publication, from int32, err error) {
	pub.resolve(from, err)
	l.p.window.leave(pub.size)
}

func (p *publisher) noRoute(pub *publication) error {
	do := "declare it: stagebus topics declare " + pub.topic
	if _, raw := stagebus.RawQueue(pub.topic); raw {
		do = "the queue doesn't exist: whoever owns it has to declare it"
	}
	return p.config.fail("send", pub.topic, stagebus.ErrNoRoute, nil, do)
}
