package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// Instance is a broker that its owner may break. It keeps its address and its data whatever is done to it.
//
// The methods may be called from any goroutine, but one at a time: what a broker does that is started while it is
// stopped, nobody needs to know.
type Instance struct {
	Broker
	ctl control
}

// control is what a way to a broker implements. None of it waits for clients to be served.
type control interface {
	stop(ctx context.Context) error
	start(ctx context.Context) error
	kill(ctx context.Context) error
	pause(ctx context.Context) error
	resume(ctx context.Context) error
	end(ctx context.Context) error // deletes the broker and its data, in whatever state it is
}

// Stop shuts the broker down in order: it closes its connections and saves what it holds. It returns when the broker has
// ended and its port refuses connections.
func (i *Instance) Stop(ctx context.Context) error { return i.do(ctx, "stop", i.ctl.stop) }

// Kill ends the broker with SIGKILL: no goodbye, nothing saved. It returns when the broker has ended.
func (i *Instance) Kill(ctx context.Context) error { return i.do(ctx, "kill", i.ctl.kill) }

// Pause freezes the broker: its connections stay open and nothing comes from them any more, as on a partitioned network
// or a stalled machine.
func (i *Instance) Pause(ctx context.Context) error { return i.do(ctx, "pause", i.ctl.pause) }

// Resume lets a paused broker go on. It does not wait for it to catch up.
func (i *Instance) Resume(ctx context.Context) error { return i.do(ctx, "resume", i.ctl.resume) }

// Start starts the broker again after Stop or Kill and returns when clients can use it.
func (i *Instance) Start(ctx context.Context) error {
	return i.do(ctx, "start", func(ctx context.Context) error {
		if err := i.ctl.start(ctx); err != nil {
			return err
		}
		return ready(ctx, &i.Broker)
	})
}

func (i *Instance) end(ctx context.Context) error { return i.do(ctx, "end", i.ctl.end) }

func (i *Instance) do(ctx context.Context, what string, f func(context.Context) error) error {
	if err := f(ctx); err != nil {
		return fmt.Errorf("broker: %s %v: %w", what, i, err)
	}
	return nil
}

// start starts a new broker that belongs to this process.
func start(ctx context.Context, k Kind) (*Instance, error) {
	var i *Instance
	err := each(func(w Way) (err error) {
		switch w {
		case Docker:
			i, err = startDocker(ctx, k)
		case Native:
			i, err = startNative(ctx, k)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := warm(ctx, &i.Broker); err != nil {
		return nil, errors.Join(err, i.end(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// each calls f with one way to start a broker after the other until it succeeds. An engine that answers may still have no
// image and no registry to get it from: then the next way serves as well, and what went wrong is said.
func each(f func(Way) error) error {
	var failed error
	ws, err := ways()
	if err != nil {
		return err
	}
	for _, w := range ws {
		err := f(w)
		if err == nil {
			if failed != nil {
				fmt.Fprintf(os.Stderr, "%v\nbroker: used %s instead\n", failed, w)
			}
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("broker: by %s: %w", w, err))
	}
	if failed == nil {
		return errNone
	}
	return failed
}

// ways returns the ways to start a broker on this machine, the preferred one first.
func ways() ([]Way, error) {
	switch w := Way(os.Getenv("STAGEBUS_TEST_BROKERS")); w {
	case "":
	case Docker, Native:
		return []Way{w}, nil // whether it works or not: it was asked for
	default:
		return nil, fmt.Errorf("broker: STAGEBUS_TEST_BROKERS is %q, not %s or %s", w, Docker, Native)
	}
	var ws []Way
	if dockerAnswers() {
		ws = append(ws, Docker)
	}
	if runtime.GOOS == "linux" {
		_, apt := exec.LookPath("apt-get")
		_, rabbit := os.Stat("/usr/lib/rabbitmq/bin/rabbitmq-server")
		if apt == nil || rabbit == nil {
			ws = append(ws, Native)
		}
	}
	return ws, nil
}

// fromEnvironment returns the broker that the environment names, nil if it names none.
func fromEnvironment(ctx context.Context, k Kind) (*Broker, error) {
	b := &Broker{kind: k, way: Environment, vars: map[string]string{}}
	for _, name := range variables[k] {
		b.vars[name] = os.Getenv(name)
	}
	if b.URL() == "" {
		return nil, nil //nolint:nilnil // no broker and no error is a third answer
	}
	addr, err := address(b.URL())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variables[k][0], err)
	}
	if err := ask(ctx, k, addr); err != nil {
		return nil, fmt.Errorf("%s names a broker that does not answer: %w", variables[k][0], err)
	}
	return b, nil
}
