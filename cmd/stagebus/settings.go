package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/config"
	"github.com/stagebus/stagebus/internal/nearest"
)

// environment is the flags that a variable sets where the command line doesn't: STAGEBUS_ and the flag's name.
var environment = []string{"connect-timeout", "output", "color", "progress"}

func variable(flag string) string {
	return "STAGEBUS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const builtIn = "built-in"

// settle takes what the environment says, and remembers for each flag where its value was said.
func (p *program) settle(c *cobra.Command) error {
	p.said = map[string]string{}
	for _, name := range environment {
		f := c.Flags().Lookup(name)
		if f == nil {
			continue
		}
		p.said[name] = builtIn
		if f.Changed {
			p.said[name] = "--" + name
			continue
		}
		v := variable(name)
		if value := p.getenv(v); value != "" {
			if err := f.Value.Set(value); err != nil {
				return fmt.Errorf("%s=%s: %s", v, value, expected(f, err))
			}
			p.said[name] = v
		}
	}
	if p.connectTimeout <= 0 {
		return fmt.Errorf("%s %v: it is positive, such as 10s", p.said["connect-timeout"], p.connectTimeout)
	}
	return nil
}

// target is the broker that a command works with.
type target struct {
	raw  string // URL, without the password of a context
	from string // where it was said

	name    string // of the context that it comes from, if any
	context config.Context
	store   config.Store
}

// target finds the broker: the flags, then the environment, then the current context. A context that is named by a flag is as near as
// --broker, which is why they exclude each other. The error is for people who use the command for the first time.
func (p *program) target() (target, error) {
	named, variable := p.context, p.getenv("STAGEBUS_BROKER")
	switch {
	case p.broker != "" && named != "":
		return target{}, usage("both --broker and --context: give one of them")
	case p.broker != "":
		return target{raw: p.broker, from: "--broker"}, nil
	case named != "":
		return p.contextTarget(named, "--context")
	case variable != "":
		return target{raw: variable, from: "STAGEBUS_BROKER"}, nil
	}
	if named = p.getenv("STAGEBUS_CONTEXT"); named != "" {
		return p.contextTarget(named, "STAGEBUS_CONTEXT")
	}
	store := config.Locate(p.getenv)
	state, err := store.LoadState()
	if err != nil {
		return target{}, &usageError{err}
	}
	if state.Current != "" {
		return p.contextTarget(state.Current, "the current context")
	}
	if f, err := store.Load(); err == nil && len(f.Contexts) > 0 {
		return target{}, noBroker("choose one with stagebus context use " + strings.Join(f.Names(), "|") + ", or give --broker URL")
	}
	return target{}, noBroker("give --broker URL or set STAGEBUS_BROKER, for example to amqp://localhost:5672/ or kafka://localhost:9092; " +
		"stagebus context add NAME --broker URL keeps it")
}

var errNoBroker = errors.New("no broker")

func noBroker(do string) error { return &usageError{fmt.Errorf("%w: %s", errNoBroker, do)} }

func (p *program) contextTarget(name, from string) (target, error) {
	store := config.Locate(p.getenv)
	f, err := store.Load()
	if err != nil {
		return target{}, &usageError{err}
	}
	c, ok := f.Contexts[name]
	if !ok {
		return target{}, noSuchContext(f, name, from)
	}
	return target{raw: c.Broker, from: fmt.Sprintf("context %q (%s)", name, from), name: name, context: c, store: store}, nil
}

func noSuchContext(f *config.File, name, from string) error {
	s := fmt.Sprintf("context %q (%s) doesn't exist", name, from)
	switch near := nearest.Of(name, f.Names()); {
	case near != "":
		s += fmt.Sprintf("; did you mean %q?", near)
	case len(f.Contexts) > 0:
		s += "; known are " + strings.Join(f.Names(), ", ")
	default:
		s += "; there is none yet: stagebus context add " + name + " --broker URL"
	}
	return usage(s)
}

// look is what the secrets of contexts are looked up in.
func (p *program) look(s config.Store) config.Lookup {
	return config.Lookup{Getenv: p.getenv, Dir: s.Dir()}
}

// address is the URL of the broker that the user named, with its password.
func (p *program) address() (string, error) {
	t, err := p.target()
	if err != nil {
		return "", err
	}
	p.from = t.from
	if t.name == "" {
		return t.raw, nil
	}
	if err := p.timeoutFrom(t); err != nil {
		return "", &usageError{err}
	}
	raw, err := t.context.URL(p.look(t.store))
	if err != nil {
		return "", usage(fmt.Sprintf("context %q: password: %v", t.name, err))
	}
	return raw, nil
}

// timeoutFrom takes the connect time-out of a context, if nothing nearer said one.
func (p *program) timeoutFrom(t target) error {
	if t.context.ConnectTimeout == "" || p.said["connect-timeout"] != builtIn {
		return nil
	}
	d, err := time.ParseDuration(t.context.ConnectTimeout)
	if err != nil {
		return err
	}
	p.connectTimeout, p.said["connect-timeout"] = d, t.from
	return nil
}
