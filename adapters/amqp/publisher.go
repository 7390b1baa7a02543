package amqp

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// publisher sends publications with confirms, over a few channels of the publishing connection. All methods are safe for
// concurrent use.
type publisher struct {
	config *config
	link   *link
	window *window
	pipes  []*pipe
	routes knownRoutes

	ctx     context.Context // ends when everything has its outcome, or has to
	cancel  context.CancelFunc
	goodbye context.Context // bounds what follows; set before ctx ends
	wg      sync.WaitGroup  // the pipes
	closed  chan struct{}   // no more Submits

	mu      sync.Mutex // protects the following
	started bool
	closing bool
	batches map[*batch]struct{} // open ones
	idle    chan struct{}       // closed once closing and no batch is open
}

func (d *driver) newPublisher(messages, bytes, pipes int) *publisher {
	p := &publisher{
		config: d.config, link: d.publish, window: newWindow(messages, bytes), routes: knownRoutes{topics: map[string]known{}},
		closed: make(chan struct{}), batches: map[*batch]struct{}{}, idle: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for range pipes {
		p.pipes = append(p.pipes, &pipe{p: p, wake: make(chan struct{}, 1)})
	}
	return p
}

var seed = maphash.MakeSeed()

// laneOf gives equal keys of a topic the same number. Messages without a key keep the order of their topic, since nothing is gained from not.
func laneOf(topic string, key []byte) uint32 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(topic)
	_ = h.WriteByte(0)
	_, _ = h.Write(key)
	return uint32(h.Sum64())
}

// submit hands pubs over and calls done once with their outcomes, see [stagebus.Producer]. The publications are the publisher's from now on. A
// topic's name and size must be set.
func (p *publisher) submit(ctx context.Context, pubs []publication, done func([]stagebus.Outcome)) error {
	b := &batch{ctx: ctx, pubs: pubs, outcomes: make([]stagebus.Outcome, len(pubs)), done: done}
	b.open.Store(int64(len(pubs)))
	for i := range pubs {
		pubs[i].b, pubs[i].index = b, i
	}
	b.done = func(os []stagebus.Outcome) {
		done(os)
		p.forget(b)
	}
	if err := p.window.enter(ctx, p.closed, pubs[0].size); err != nil {
		return p.unsent(pubs[0].topic, err)
	}
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		p.window.leave(pubs[0].size)
		return p.config.fail("send", pubs[0].topic, stagebus.ErrClosed, nil, "")
	}
	// From here on the batch is accepted: whatever happens is an outcome. It is whole when close may see it.
	ready := make(chan struct{}) // b.stop is written once, before anybody calls it
	b.stop = context.AfterFunc(ctx, func() {
		<-ready
		b.expire(p, context.Cause(ctx))
	})
	p.batches[b] = struct{}{}
	if !p.started {
		p.started = true
		for _, l := range p.pipes {
			p.wg.Go(l.run)
		}
	}
	p.mu.Unlock()
	close(ready)
	for i := range pubs {
		pub := &pubs[i]
		if i > 0 {
			if err := p.window.enter(ctx, p.ctx.Done(), pub.size); err != nil {
				b.expire(p, err)
				return nil
			}
		}
		p.pipes[pub.lane%uint32(len(p.pipes))].push(pub)
	}
	return nil
}

func (p *publisher) forget(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.batches, b)
	if p.closing && len(p.batches) == 0 {
		close(p.idle)
	}
}

// close refuses new messages, waits for the outcomes of the others until ctx ends, and for the pipes to end.
func (p *publisher) close(ctx context.Context) error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return nil
	}
	p.closing = true
	close(p.closed)
	if len(p.batches) == 0 {
		close(p.idle)
	}
	p.mu.Unlock()
	select {
	case <-p.idle:
	case <-ctx.Done():
	}
	p.goodbye = ctx
	p.cancel() // the pipes send no more: nothing goes behind what is given up now
	p.mu.Lock()
	var late []*batch
	for b := range p.batches {
		late = append(late, b)
	}
	p.mu.Unlock()
	var err error
	if len(late) > 0 {
		err = p.config.fail("close", "", stagebus.ErrUncertain, context.Cause(ctx), "messages were on their way: their outcomes say which")
		for _, b := range late {
			b.expire(p, stagebus.ErrClosed)
		}
	}
	_ = wait(ctx, &p.wg) // a pipe whose write is stuck ends with its session
	return err
}

// knownRoutes remembers for a while which way the messages of a topic go. The exchange is the way of all that nothing is known of.
type knownRoutes struct {
	mu      sync.Mutex
	topics  map[string]known
	missing known // no such exchange
}

type known struct {
	session int64
	until   time.Time
}

const (
	routeMemory = 5 * time.Second
	routesMax   = 4096
)

func (k known) holds(s *session, now time.Time) bool {
	return k.session == s.epoch && now.Before(k.until)
}

// choose returns the way to try next, out of those that pub has left.
func (r *knownRoutes) choose(s *session, pub *publication) routes {
	if pub.via&viaExchange == 0 {
		return direct
	}
	if pub.via&direct == 0 {
		return viaExchange
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.missing.holds(s, now) || r.topics[pub.topic].holds(s, now) {
		return direct
	}
	return viaExchange
}

// learn notes that the default exchange brought a topic's message to its queue, when the other didn't.
func (r *knownRoutes) learn(s *session, topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.topics) >= routesMax { // it is a memory of seconds: starting anew costs a return for each
		clear(r.topics)
	}
	r.topics[topic] = known{s.epoch, time.Now().Add(routeMemory)}
}

func (r *knownRoutes) unlearn(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.topics, topic)
}

func (r *knownRoutes) setMissing(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = known{s.epoch, time.Now().Add(routeMemory)}
}

// target returns what to publish to for a route.
func (c *config) target(pub *publication, route routes) (exchange, key string) {
	if route == direct {
		return "", pub.queue
	}
	return c.Exchange, pub.topic
}
