package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
)

// shutdownTimeout bounds what is done after the last message: outcomes, settlements, goodbyes.
const shutdownTimeout = 15 * time.Second

// adminTimeout bounds the commands that ask and declare.
const adminTimeout = 30 * time.Second

func (p *program) brokerFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&p.broker, "broker", "", "`URL` of the broker (default: STAGEBUS_BROKER, then the context)")
	f.StringVar(&p.context, "context", "", "`name` of the context to use (default: STAGEBUS_CONTEXT, then the current one)")
	f.DurationVar(&p.connectTimeout, "connect-timeout", 10*time.Second, "how long to try to reach the broker")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing on standard error but errors")
	f.StringVar(&p.metrics, "metrics", "", "serve Prometheus metrics at http://`ADDRESS`/metrics while the command runs, such as localhost:9464")
}

// open connects to the broker that the user named. The caller closes it with shut.
func (p *program) open(ctx context.Context) (*stagebus.Broker, error) {
	raw, err := p.address()
	if err != nil {
		return nil, err
	}
	b, err := p.connect(ctx, raw)
	if errors.Is(err, stagebus.ErrInvalid) {
		err = &usageError{fmt.Errorf("%s: %w", p.from, err)}
	}
	return b, err
}

// connect opens a broker within --connect-timeout, with everything that passes counted for --metrics and for tables.
func (p *program) connect(ctx context.Context, raw string) (*stagebus.Broker, error) {
	if err := p.serveMetrics(); err != nil {
		return nil, err
	}
	var stack stagebus.Stack
	if !p.bare || p.metrics != "" {
		var err error
		if stack, err = stagebus.NewStack(p.meter.Middleware()); err != nil {
			return nil, err
		}
	}
	connect, cancel := context.WithTimeout(ctx, p.connectTimeout)
	defer cancel()
	b, err := adapters.Open(connect, raw, adapters.Options{Stack: stack, Hook: p.meter.Hook(p.hook)})
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, stagebus.ErrInvalid):
		return nil, &usageError{err}
	}
	return nil, err
}

// shut closes b and adds what went wrong to *err.
func shut(b *stagebus.Broker, err *error) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	*err = errors.Join(*err, b.Close(ctx))
}

// events are what adapters say beside errors. While messages flow they are told at once: they explain why nothing goes on. Before,
// when the broker is only asked something, they are held: a command that fails has its error to say, on one line.
type events struct {
	mu      sync.Mutex // protects the following
	flowing bool
	held    []stagebus.Event
	refused error  // the last one that trying again won't mend: something isn't permitted
	last    string // what was told last: an outage repeats itself several times a second
}

const maxHeld = 16

// hook is the stagebus.Hook.
func (p *program) hook(e stagebus.Event) {
	p.events.mu.Lock()
	flowing := p.events.flowing
	if e.Kind == stagebus.EventError && errors.Is(e.Err, stagebus.ErrAuth) {
		p.events.refused = e.Err
	}
	if !flowing && len(p.events.held) < maxHeld {
		p.events.held = append(p.events.held, e)
	}
	p.events.mu.Unlock()
	if flowing {
		p.tell(e)
	}
}

// flow begins to tell events. What was held is dropped: it was about questions that have been answered since.
func (p *program) flow() {
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	p.events.flowing, p.events.held = true, nil
}

// refused returns what isn't permitted, as far as events told.
func (p *program) refused() error {
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	return p.events.refused
}

// hold ends what flow began: messages don't flow any more, and what adapters say of the questions that follow is for tellHeld.
func (p *program) hold() {
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	p.events.flowing, p.events.held = false, nil
}

// tellHeld says what an answer that was printed lacks, and why.
func (p *program) tellHeld(lack string) {
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	for _, e := range p.events.held {
		if e.Kind == stagebus.EventError && e.Err != nil {
			p.notef("%s: %v", lack, e.Err)
		}
	}
}

func (p *program) tell(e stagebus.Event) {
	line := ""
	switch e.Kind {
	case stagebus.EventDisconnected:
		line = fmt.Sprintf("connection to %s lost, reconnecting: %v", e.Broker, e.Err)
	case stagebus.EventBlocked:
		line = fmt.Sprintf("%s takes no messages for now: %v", e.Broker, e.Err)
	case stagebus.EventUnblocked:
		line = e.Broker + " takes messages again"
	case stagebus.EventMissing:
		line = fmt.Sprintf("%q has vanished from %s, waiting for it", e.Topic, e.Broker)
	case stagebus.EventError:
		line = fmt.Sprintf("trying again: %v", e.Err)
	default:
		return // the ordinary course of things
	}
	p.events.mu.Lock()
	again := line == p.events.last
	p.events.last = line
	p.events.mu.Unlock()
	if !again {
		p.notef("%s", line)
	}
}
