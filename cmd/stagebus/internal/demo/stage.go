package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/pipeline"
)

const (
	drainTime   = 5 * time.Second
	closeTime   = 15 * time.Second // what is done after the end
	declareTime = 60 * time.Second
)

// stage is one of [Stages] while it runs, with a broker connection of its own, as if it were a process of its own. It may be one.
type stage struct {
	o    *Options
	name string
	b    *stagebus.Broker
	p    stagebus.Producer

	stop context.CancelCauseFunc // ends the stage

	duplicates counter // messages that came again and were told apart
}

// fail ends the stage with an error that no repetition would mend. It returns errStopped, for handlers.
func (s *stage) fail(err error) error {
	s.stop(err)
	return errStopped
}

// errEnd is the cause of a context that ended because the run is over.
var errEnd = errors.New("the end of the run")

// open connects, and makes what isn't there.
func (o *Options) open(ctx context.Context, name string) (*stage, error) {
	b, err := o.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{o: o, name: name, b: b}
	ready, cancel := context.WithTimeout(ctx, declareTime)
	defer cancel()
	if err = declare(ready, b, o.Prefix); err == nil {
		s.p, err = b.Producer(ready, stagebus.ProducerOptions{})
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return s.b.Close(ctx)
}

func (o *Options) topic(t string) string { return o.Prefix + "." + t }

// consume opens the consumer of a reader. prefetch bounds what it holds.
func (s *stage) consume(ctx context.Context, r reader, prefetch int) (stagebus.Consumer, error) {
	o := stagebus.ConsumerOptions{
		Group:    group(s.o.Prefix, r.name, r.topics[0], s.b.Capabilities()),
		Prefetch: prefetch * len(r.topics),
		Drain:    drainTime,
		Native:   s.o.native(s.name),
	}
	for _, t := range r.topics {
		o.Topics = append(o.Topics, s.o.topic(t))
	}
	return s.b.Consumer(ctx, o)
}

// work is a part of a stage: what it reads, how, and how many at a time.
type work struct {
	reader   reader
	handle   pipeline.Handler
	workers  int
	prefetch int
	wrap     func(stagebus.Consumer) stagebus.Consumer // nil: as it is
}

// serve handles what comes until ctx ends, which is no error.
func (s *stage) serve(ctx context.Context, w work) error {
	c, err := s.consume(ctx, w.reader, w.prefetch)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if w.wrap != nil {
		c = w.wrap(c)
	}
	err = pipeline.Run(ctx, pipeline.Stage{
		Name: s.name + "/" + w.reader.name, Consumer: c, Producer: s.p, Handle: w.handle,
		Workers: max(w.workers, 1), Batch: w.prefetch, Drain: drainTime,
	})
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, c.Close(shut))
}

func readerNamed(name string) reader {
	for _, r := range readers {
		if r.name == name {
			return r
		}
	}
	panic("no reader " + name)
}

// all runs fs at the same time until all have ended. The first that fails ends the context of the others.
func all(ctx context.Context, fs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() {
			if errs[i] = f(ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// send sends messages that came of nothing.
func (s *stage) send(ctx context.Context, ms ...stagebus.Message) error {
	stagebus.Stamp(ms)
	return stagebus.Send(ctx, s.p, ms...)
}

// counter counts. Its zero value is ready; it may be used concurrently.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
