package main

import (
	"context"
	"errors"
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
	f.StringVar(&p.broker, "broker", "", "`URL` of the broker (default: STAGEBUS_BROKER)")
	f.DurationVar(&p.connectTimeout, "connect-timeout", 10*time.Second, "how long to try to reach the broker")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing on standard error but errors")
}

// open connects to the broker that the user named. The caller closes it with shut.
func (p *program) open(ctx context.Context) (*stagebus.Broker, error) {
	raw := p.broker
	if raw == "" {
		raw = p.getenv("STAGEBUS_BROKER")
	}
	if raw == "" {
		return nil, usage("no broker: give --broker URL or set STAGEBUS_BROKER, for example to amqp://guest:guest@localhost:5672/ or kafka://localhost:9092")
	}
	connect, cancel := context.WithTimeout(ctx, p.connectTimeout)
	defer cancel()
	b, err := adapters.Open(connect, raw, adapters.Options{Hook: p.event})
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

// event tells why nothing goes on.
func (p *program) event(e stagebus.Event) {
	switch e.Kind {
	case stagebus.EventDisconnected:
		p.notef("connection to %s lost, reconnecting: %v", e.Broker, e.Err)
	case stagebus.EventBlocked:
		p.notef("%s takes no messages for now: %v", e.Broker, e.Err)
	case stagebus.EventUnblocked:
		p.notef("%s takes messages again", e.Broker)
	case stagebus.EventMissing:
		p.notef("%q has vanished from %s, waiting for it", e.Topic, e.Broker)
	case stagebus.EventError:
		p.notef("%q at %s, trying again: %v", e.Topic, e.Broker, e.Err)
	default:
		// the rest is the ordinary course of things
	}
}
