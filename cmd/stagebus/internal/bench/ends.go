package bench

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
)

// ends are the producers and consumers of a phase, with the goroutines of the consumers.
type ends struct {
	p         *phase
	producers []stagebus.Producer
	consumers []stagebus.Consumer // of messages, or of requests
	replies   stagebus.Consumer   // for Request
	answers   []stagebus.Producer // for Request, one for each of consumers

	cancel context.CancelFunc
	wg     sync.WaitGroup
	open   sync.WaitGroup // replies without outcome
	failed chan struct{}  // closed when a consumer can't go on
	once   sync.Once
	mu     sync.Mutex // protects err
	err    error
}

func (e *ends) openConsumers(ctx context.Context) error {
	e.failed = make(chan struct{})
	p := e.p
	for range p.s.Consumers {
		c, err := p.t.consumer(ctx, p.s, p.topic, p.t.group(p.topic))
		if err != nil {
			return err
		}
		e.consumers = append(e.consumers, c)
		if p.s.Mode != Request {
			continue
		}
		answer, err := p.t.producer(ctx, p.s)
		if err != nil {
			return err
		}
		e.answers = append(e.answers, answer)
	}
	if p.s.Mode != Request {
		return nil
	}
	var err error
	e.replies, err = p.t.consumer(ctx, p.s, p.reply, p.t.group(p.reply))
	return err
}

// receive starts to.
func (e *ends) receive() {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	arrive := func(c stagebus.Consumer) func(ctx context.Context, ds []stagebus.Delivery) error {
		a := &arrivals{p: e.p, c: c}
		return a.take
	}
	for i, c := range e.consumers {
		take := arrive(c)
		if e.p.s.Mode == Request {
			r := &responder{e: e, c: c, out: e.answers[i]}
			take = r.take
		}
		e.wg.Go(func() { e.loop(ctx, c, take) })
	}
	if e.replies != nil {
		take := arrive(e.replies)
		e.wg.Go(func() { e.loop(ctx, e.replies, take) })
	}
}

func (e *ends) loop(ctx context.Context, c stagebus.Consumer, take func(context.Context, []stagebus.Delivery) error) {
	dst := make([]stagebus.Delivery, e.p.s.Batch)
	for {
		n, err := c.Receive(ctx, dst)
		if n > 0 {
			if e := take(ctx, dst[:n]); err == nil {
				err = e
			}
			clear(dst[:n]) // or it pins the batch while waiting
		}
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return
		default:
			e.fail(err)
			return
		}
	}
}

func (e *ends) fail(err error) {
	e.mu.Lock()
	e.err = errors.Join(e.err, err)
	e.mu.Unlock()
	e.p.fail(err)
	e.once.Do(func() { close(e.failed) })
}

// stop ends receiving, and returns why a consumer couldn't go on, once.
func (e *ends) stop() error {
	if e.cancel == nil {
		return nil
	}
	e.cancel()
	e.wg.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.err
	e.err = nil
	return err
}

// close closes all that was opened, consumers first: their handlers may still answer.
func (e *ends) close() error {
	err := e.stop()
	ctx, cancel := context.WithTimeout(context.Background(), tidyTime)
	defer cancel()
	e.open.Wait() // bounded by the producers' time-out
	consumers := e.consumers
	if e.replies != nil {
		consumers = append(consumers, e.replies)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	note := func(e error) {
		mu.Lock()
		defer mu.Unlock()
		err = errors.Join(err, e)
	}
	for _, c := range consumers {
		wg.Go(func() { note(c.Close(ctx)) })
	}
	wg.Wait()
	for _, p := range append(e.producers, e.answers...) {
		wg.Go(func() { note(p.Close(ctx)) })
	}
	wg.Wait()
	return err
}

// arrivals takes what one consumer gets.
type arrivals struct {
	p      *phase
	c      stagebus.Consumer
	dues   []time.Duration
	tokens []stagebus.Token
}

func (a *arrivals) take(ctx context.Context, ds []stagebus.Delivery) error {
	now := a.p.now()
	a.dues, a.tokens = a.dues[:0], a.tokens[:0]
	var bytes int64
	for i := range ds {
		d := &ds[i]
		a.tokens = append(a.tokens, d.Token)
		s, ok := readStamp(d.Body)
		if !ok || s.phase != a.p.id || int(s.producer) >= len(a.p.gens) {
			a.p.foreign.Add(1)
			continue
		}
		if a.p.gens[s.producer].book.arrive(s.seq) {
			a.dues = append(a.dues, s.due)
			bytes += int64(d.Size())
		}
	}
	a.p.rec.completed(now, a.dues, bytes)
	a.p.gate.leave(len(a.dues))
	nudge(a.p.moved)
	return settle(ctx, a.c, stagebus.Done, a.tokens)
}

// settle forgives what is stale: it comes again, to be counted as a duplicate.
func settle(ctx context.Context, c stagebus.Consumer, v stagebus.Verdict, ts []stagebus.Token) error {
	err := c.Settle(context.WithoutCancel(ctx), v, ts...)
	if errors.Is(err, stagebus.ErrStale) {
		return nil
	}
	return err
}

// responder answers requests with what they say, and settles them once the answer is confirmed.
type responder struct {
	e   *ends
	c   stagebus.Consumer
	out stagebus.Producer
}

func (r *responder) take(ctx context.Context, ds []stagebus.Delivery) error {
	answers := make([]stagebus.Message, 0, len(ds))
	tokens := make([]stagebus.Token, 0, len(ds))
	for i := range ds {
		d := &ds[i]
		if s, ok := readStamp(d.Body); !ok || s.phase != r.e.p.id {
			r.e.p.foreign.Add(1)
			if err := settle(ctx, r.c, stagebus.Done, []stagebus.Token{d.Token}); err != nil {
				return err
			}
			continue
		}
		answers = append(answers, stagebus.Message{Topic: d.ReplyTo, Key: d.Key, Body: d.Body, CorrelationID: d.CorrelationID})
		tokens = append(tokens, d.Token)
	}
	if len(answers) == 0 {
		return nil
	}
	r.e.open.Add(1)
	err := r.out.Submit(context.WithoutCancel(ctx), answers, func(os []stagebus.Outcome) {
		defer r.e.open.Done()
		for i := range os {
			v := stagebus.Done
			if os[i].Err != nil {
				v = stagebus.Release
				r.e.p.fail(os[i].Err)
			}
			if err := settle(ctx, r.c, v, tokens[i:i+1]); err != nil { // neither verdict waits for the network
				r.e.p.fail(err)
			}
		}
	})
	if err != nil {
		r.e.open.Done()
		return err
	}
	return nil
}
