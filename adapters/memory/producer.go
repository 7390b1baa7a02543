package memory

import (
	"context"
	"errors"
	"time"

	"github.com/stagebus/stagebus"
)

// producer implements [stagebus.Producer]. A message is in its log when Submit returns, so the window is the callers' own: what a
// blocked Submit holds. The store's lock protects what changes.
type producer struct {
	d      *driver
	o      stagebus.ProducerOptions
	closed bool
	active int             // Submits that run
	idle   signal          // fired when the last of them ends
	ctx    context.Context // ends when Close can't wait for them any longer
	cancel context.CancelCauseFunc
}

// Producer implements [stagebus.Driver].
func (d *driver) Producer(ctx context.Context, o stagebus.ProducerOptions) (stagebus.Producer, error) {
	p, err := d.producer(ctx, o)
	if err != nil {
		return nil, err // not a nil *producer
	}
	return p, nil
}

func (d *driver) producer(ctx context.Context, o stagebus.ProducerOptions) (*producer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := refuseNative("ProducerOptions", o.Native); err != nil {
		return nil, err
	}
	p := &producer{d: d, o: o}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	return p, nil
}

// Submit implements [stagebus.Producer]. It calls done before it returns.
func (p *producer) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	s := p.d.store
	s.lock()
	if err := p.begin(ctx); err != nil {
		s.unlock()
		return err
	}
	outcomes := make([]stagebus.Outcome, len(ms))
	p.append(ctx, ms, outcomes)
	s.unlock()
	done(outcomes)
	p.end()
	return nil
}

// begin refuses, or has Close wait for end.
func (p *producer) begin(ctx context.Context) error {
	if p.closed {
		return p.d.fail("send", "", stagebus.ErrClosed, nil, "open another producer")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.active++
	return nil
}

func (p *producer) end() {
	p.d.store.lock()
	defer p.d.store.unlock()
	if p.active--; p.active == 0 {
		p.idle.fire()
	}
}

// append puts ms into their logs, one after the other, and waits where there is no room. Between waits it knows the loads
// of topics without counting again, since nobody else can add to them.
func (p *producer) append(ctx context.Context, ms []stagebus.Message, outcomes []stagebus.Outcome) {
	var t *topic
	var held load
	now := time.Now()
	for i := range ms {
		m := &ms[i]
		if t == nil || t.name != m.Topic {
			if t = p.d.store.find(p.d, m.Topic, p.o.Create); t == nil {
				outcomes[i].Err = p.d.missing("send", m.Topic, stagebus.ErrNoRoute)
				continue
			}
			held = t.held()
		}
		more := load{1, int64(m.Size())}
		if !t.fits(held, more) {
			var err error
			if t, err = p.room(ctx, m.Topic, more); errors.Is(err, stagebus.ErrNoRoute) {
				outcomes[i].Err = err // deleted meanwhile
				continue
			} else if err != nil {
				for j := i; j < len(ms); j++ { // no later message passes one that had no room
					outcomes[j].Err = err
				}
				return
			}
			held = t.held()
		}
		log := t.choose(m)
		if log == nil {
			n, _ := m.Partition.Pinned()
			outcomes[i].Err = p.d.noPartition(n, t)
			continue
		}
		outcomes[i].Position = t.append(log, detach(m, now))
		held.add(more)
	}
}

// room is driver.room until Close gives up.
func (p *producer) room(ctx context.Context, name string, more load) (*topic, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()
	return p.d.room(ctx, "send", name, p.o.Create, more)
}

// room returns a topic that has room for more, and waits for it: the lock is given up meanwhile.
func (d *driver) room(ctx context.Context, op, name string, create bool, more load) (*topic, error) {
	for {
		t := d.store.find(d, name, create)
		if t == nil {
			return nil, d.missing(op, name, stagebus.ErrNoRoute)
		}
		held := t.held()
		if t.fits(held, more) {
			return t, nil
		}
		if t.waiting++; t.waiting == 1 {
			d.store.emit(d, stagebus.Event{Kind: stagebus.EventBlocked, Topic: name, N: held.n})
		}
		err := d.store.wait(ctx, &t.room)
		if t.waiting--; t.waiting == 0 {
			d.store.emit(d, stagebus.Event{Kind: stagebus.EventUnblocked, Topic: name})
		}
		if err != nil {
			if errors.Is(err, stagebus.ErrClosed) {
				return nil, err
			}
			return nil, d.fail(op, name, stagebus.ErrRefused, full{held, err}, "settle what is there, Purge it, or declare the topic with a larger Capacity")
		}
	}
}

// full is why there was no room in time.
type full struct {
	held load
	err  error
}

func (f full) Error() string {
	return "no room: " + itoa(f.held.n) + " messages, " + itoa(f.held.bytes) + " bytes are not settled: " + f.err.Error()
}

func (f full) Unwrap() error { return f.err }

// Close implements [stagebus.Producer]. What had no room yet when ctx ends is not sent: its error is ErrClosed, not ErrUncertain.
func (p *producer) Close(ctx context.Context) error {
	s := p.d.store
	s.lock()
	defer s.unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	for p.active > 0 && err == nil {
		err = s.wait(ctx, &p.idle)
	}
	p.cancel(p.d.fail("send", "", stagebus.ErrClosed, nil, "open another producer"))
	return err
}
