package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/config"
)

func (p *program) contextCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "context",
		Short: "Keep the brokers you work with under names",
		Long: `A context is a broker with a name: its URL, where its password is, and how long to try to reach it. Commands use the
current one unless --broker, --context, STAGEBUS_BROKER or STAGEBUS_CONTEXT say another; "stagebus config explain" shows what holds.

Contexts are in $XDG_CONFIG_HOME/stagebus/config.yaml (~/.config/stagebus/config.yaml), which may be edited. Passwords are not: a
context says where one is, env:NAME for an environment variable or file:PATH for a file.`,
		Example: `  stagebus context add local --broker kafka://localhost:9092
  stagebus context add prod --broker amqps://app@rabbit.example.org/ --password env:RABBIT_PASSWORD
  stagebus context use prod
  stagebus context use -`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().BoolVarP(&p.quiet, "quiet", "q", false, "say nothing on standard error but errors")
	c.AddCommand(p.contextAddCommand(), p.contextUseCommand(), p.contextListCommand(), p.contextShowCommand(), p.contextRemoveCommand())
	return c
}

// contexts is the user's files, read.
type contexts struct {
	store config.Store
	file  *config.File
	state config.State
}

func (p *program) contexts() (*contexts, error) {
	s := &contexts{store: config.Locate(p.getenv)}
	var err error
	if s.file, err = s.store.Load(); err == nil {
		s.state, err = s.store.LoadState()
	}
	if err != nil {
		return nil, &usageError{err}
	}
	return s, nil
}

// use makes a context the current one.
func (s *contexts) use(name string) error {
	if name == s.state.Current {
		return nil
	}
	s.state = config.State{Current: name, Previous: s.state.Current}
	return s.store.SaveState(s.state)
}

func (p *program) contextAddCommand() *cobra.Command {
	var c config.Context
	var password string
	var use, force bool
	cmd := &cobra.Command{
		Use:   "add NAME --broker URL",
		Short: "Add a context, the first one as the current one",
		Example: `  stagebus context add local --broker amqp://localhost:5672/
  stagebus context add prod --broker kafkas://app@k1:9093,k2:9093 --password file:~/.secrets/kafka --use`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&c.Broker, "broker", "", "`URL` of the broker, without a password")
	f.StringVar(&password, "password", "", "where the password is: env:NAME or file:PATH, a `reference`")
	f.StringVar(&c.ConnectTimeout, "connect-timeout", "", "how long to try to reach it, such as 5s (default: the command's)")
	f.StringVar(&c.Description, "description", "", "what it is, for the list")
	f.BoolVar(&use, "use", false, "make it the current one")
	f.BoolVar(&force, "force", false, "replace a context of that name")
	cmd.RunE = p.does(func(_ context.Context, args []string) error {
		name := args[0]
		s, err := p.contexts()
		if err != nil {
			return err
		}
		if _, ok := s.file.Contexts[name]; ok && !force {
			return usage(fmt.Sprintf("context %q exists; --force replaces it", name))
		}
		if !f.Changed("connect-timeout") {
			c.ConnectTimeout = "" // STAGEBUS_CONNECT_TIMEOUT is this shell's, and is not kept
		}
		c.Password = config.Secret(password)
		if err := p.checkContext(name, &c); err != nil {
			return &usageError{err}
		}
		s.file.Contexts[name] = c
		if err := s.store.Save(s.file); err != nil {
			return err
		}
		if use || s.state.Current == "" {
			if err := s.use(name); err != nil {
				return err
			}
		}
		return p.contextChanged(s, name, "added")
	})
	return cmd
}

// checkContext finds what is wrong with a context that is to be added, and says what to type instead.
func (p *program) checkContext(name string, c *config.Context) (err error) {
	if err := config.CheckName(name); err != nil {
		return err
	}
	if c.Broker == "" {
		return errors.New("no broker: give --broker URL, for example amqp://localhost:5672/ or kafka://localhost:9092")
	}
	if err := adapters.CheckURL(c.Broker); err != nil {
		return fmt.Errorf("--broker: %w", err)
	}
	field, err := c.Check()
	var plain *config.PlainPasswordError
	switch {
	case errors.As(err, &plain):
		return fmt.Errorf("--broker has a password, which is not kept in a file: put it into a variable or a file and type "+
			"stagebus context add %s --broker '%s' --password env:%s", name, plain.Bare, passwordVariable(name))
	case err != nil:
		return fmt.Errorf("--%s: %w", field, err)
	}
	c.Password, err = c.Password.Absolute(p.getenv("HOME"))
	return err
}

// passwordVariable is a name for the variable that has a context's password.
func passwordVariable(context string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return r
	}, context)) + "_PASSWORD"
}

// contextChanged says what has become of a context.
func (p *program) contextChanged(s *contexts, name, what string) error {
	current := s.state.Current == name
	if p.json() {
		return p.printLines(map[string]any{"context": name, what: true, "current": current})
	}
	said := fmt.Sprintf("context %q %s", name, what)
	if current {
		said += "; it is the current one"
	}
	p.notef("%s", said)
	for _, v := range []string{"STAGEBUS_BROKER", "STAGEBUS_CONTEXT"} {
		if current && p.getenv(v) != "" {
			p.notef("%s is set and beats the current context", v)
		}
	}
	return nil
}

func (p *program) contextUseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "use NAME|-",
		Short:             "Make a context the current one; - is the one before",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeContexts,
	}
	c.RunE = p.does(func(_ context.Context, args []string) error {
		s, err := p.contexts()
		if err != nil {
			return err
		}
		name := args[0]
		if name == "-" {
			if name = s.state.Previous; name == "" {
				return usage("there is no context before the current one")
			}
		}
		if _, ok := s.file.Contexts[name]; !ok {
			return noSuchContext(s.file, name, "the argument")
		}
		if err := s.use(name); err != nil {
			return err
		}
		return p.contextChanged(s, name, "used")
	})
	return c
}

// contextRecord is the JSON of a context. Its fields stay as they are.
type contextRecord struct {
	Name           string `json:"name"`
	Current        bool   `json:"current"`
	Description    string `json:"description,omitempty"`
	Broker         string `json:"broker"`
	Password       string `json:"password,omitempty"` // the reference
	ConnectTimeout string `json:"connect_timeout,omitempty"`
}

func (s *contexts) record(name string) contextRecord {
	c := s.file.Contexts[name]
	return contextRecord{name, name == s.state.Current, c.Description, config.Redact(c.Broker), string(c.Password), c.ConnectTimeout}
}

func (p *program) contextListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List contexts; * marks the current one",
		Args:  cobra.NoArgs,
	}
	c.RunE = p.does(func(context.Context, []string) error {
		s, err := p.contexts()
		if err != nil {
			return err
		}
		var rows bytes.Buffer
		for _, n := range s.file.Names() {
			r := s.record(n)
			if p.json() {
				if err := p.printLines(r); err != nil {
					return err
				}
				continue
			}
			mark := " "
			if r.Current {
				mark = "*"
			}
			fmt.Fprintf(&rows, "%s %s\t%s\t%s\n", mark, r.Name, r.Broker, r.Description)
		}
		if len(s.file.Contexts) == 0 {
			p.notef("no contexts yet: stagebus context add NAME --broker URL")
		}
		return p.printTable(&rows)
	})
	return c
}

func (p *program) contextShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "show [NAME]",
		Short:             "Show a context, the current one without a name",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeContexts,
	}
	c.RunE = p.does(func(_ context.Context, args []string) error {
		s, err := p.contexts()
		if err != nil {
			return err
		}
		name, from := s.state.Current, "the current context"
		if len(args) == 1 {
			name, from = args[0], "the argument"
		}
		if name == "" {
			return usage("there is no current context: name one, or choose it with stagebus context use NAME")
		}
		if _, ok := s.file.Contexts[name]; !ok {
			return noSuchContext(s.file, name, from)
		}
		r := s.record(name)
		if p.json() {
			return p.printLines(r)
		}
		var rows bytes.Buffer
		for _, row := range [][2]string{
			{"name", r.Name},
			{"description", r.Description},
			{"broker", r.Broker},
			{"password", r.Password},
			{"connect-timeout", r.ConnectTimeout},
		} {
			if row[1] != "" {
				fmt.Fprintf(&rows, "%s\t%s\n", row[0], row[1])
			}
		}
		return p.printTable(&rows)
	})
	return c
}

func (p *program) contextRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "remove NAME...",
		Short:             "Remove contexts; nothing happens to their brokers",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeContexts,
	}
	c.RunE = p.does(func(_ context.Context, args []string) error {
		s, err := p.contexts()
		if err != nil {
			return err
		}
		for _, name := range args { // all or none
			if _, ok := s.file.Contexts[name]; !ok {
				return noSuchContext(s.file, name, "the argument")
			}
		}
		for _, name := range args {
			s.file.Remove(name)
			if err := s.store.Save(s.file); err != nil {
				return err
			}
			before := s.state
			if before.Current == name {
				s.state.Current = ""
			}
			if before.Previous == name {
				s.state.Previous = ""
			}
			if s.state != before {
				if err := s.store.SaveState(s.state); err != nil {
					return err
				}
			}
			if err := p.contextChanged(s, name, "removed"); err != nil {
				return err
			}
		}
		return nil
	})
	return c
}
