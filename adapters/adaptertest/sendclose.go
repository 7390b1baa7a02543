package adaptertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/stagebus/stagebus"
)

var sendCloseCases = []Case{
	{Name: "send/close-flushes", Proves: "Close waits for what was accepted: all of it is there", run: closeFlushesCase},
	{Name: "send/close-while-sending", Proves: "closing among senders leaves an outcome for all that was accepted, and ErrClosed for the rest", run: closeWhileSendingCase},
}

func closeFlushesCase(e *env) {
	const n = 200
	topic := e.topic()
	c, p := e.consumer(topic, ""), e.producer()
	var open atomic.Int64
	var failed atomic.Pointer[error]
	for i := range n {
		open.Add(1)
		m := stagebus.Message{Topic: topic, Key: []byte("one"), Body: []byte(fmt.Sprint("m", i))}
		err := p.Submit(e.ctx(), []stagebus.Message{m}, func(os []stagebus.Outcome) {
			if os[0].Err != nil {
				failed.Store(&os[0].Err)
			}
			open.Add(-1)
		})
		if err != nil {
			e.Fatalf("submit %d: %v", i, err)
		}
	}
	e.closeIt("producer", p.Close)
	if k := open.Load(); k != 0 {
		e.Fatalf("Close returned while %d of %d messages had no outcome", k, n)
	}
	if err := failed.Load(); err != nil {
		e.Fatalf("a message that was accepted before Close: %v", *err)
	}
	for i, b := range e.take(c, n) {
		if b != fmt.Sprint("m", i) {
			e.Fatalf("message %d is %q", i, b)
		}
	}
	e.closeIt("producer, again", p.Close)
	e.want(p.Submit(e.ctx(), texts(topic, "late"), func([]stagebus.Outcome) { e.Errorf("done ran after Close") }), "submit after Close", stagebus.ErrClosed)
	e.nothingBefore(e.producer(), c, topic, "a Submit after Close")
}

func closeWhileSendingCase(e *env) {
	topic := e.topic()
	c, p := e.consumer(topic, ""), e.producer()
	var mu sync.Mutex
	arrived := map[string]bool{} // by body: whether the outcome was nil
	var accepted, outcomes atomic.Int64
	var senders sync.WaitGroup
	warm := make(chan struct{})
	var once sync.Once
	ctx := e.ctx()
	for s := range 4 {
		senders.Go(func() {
			for i := 0; ; i++ {
				ms := texts(topic, numbered(fmt.Sprintf("s%d-%d-", s, i), 1+rand.IntN(4))...)
				err := p.Submit(ctx, ms, func(os []stagebus.Outcome) {
					mu.Lock()
					for j := range ms {
						arrived[string(ms[j].Body)] = os[j].Err == nil
						if os[j].Err != nil {
							e.Errorf("%s was accepted, then failed: %v", ms[j].Body, os[j].Err)
						}
					}
					mu.Unlock()
					outcomes.Add(1)
				})
				switch {
				case err == nil:
					accepted.Add(1)
				case errors.Is(err, stagebus.ErrClosed):
					return
				default:
					e.Errorf("submit while closing: %v", err)
					return
				}
				if i == 5 {
					once.Do(func() { close(warm) })
				}
			}
		})
	}
	e.await(warm, "the first messages")
	e.closeIt("producer", p.Close)
	stopped := make(chan struct{})
	go func() { senders.Wait(); close(stopped) }()
	e.await(stopped, "ErrClosed for every sender")
	if a, o := accepted.Load(), outcomes.Load(); a != o {
		e.Fatalf("%d Submits were accepted and %d had their outcomes when Close returned", a, o)
	}
	mu.Lock()
	defer mu.Unlock()
	for range len(arrived) {
		b := e.take(c, 1)[0]
		if ok, known := arrived[b]; !ok || !known {
			e.Fatalf("got %q twice, or though it was not accepted", b)
		}
		arrived[b] = false
	}
	e.nothingBefore(e.producer(), c, topic, "all that was accepted has been received")
}
