package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/config"
)

func (p *program) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Say what configures the command",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.explainCommand())
	return c
}

func (p *program) explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Say what each setting is and where it was said",
		Long: `explain prints the settings that a command with the same flags and environment would work with, and where each comes
from. The nearest wins: flags, STAGEBUS_ variables, the context, what is built in. Passwords are not shown. It connects to nothing.`,
		Args: cobra.NoArgs,
	}
	p.brokerFlags(c)
	p.progressFlag(c)
	c.RunE = p.does(func(context.Context, []string) error {
		settings, err := p.explain()
		if err != nil {
			return err
		}
		var rows bytes.Buffer
		for _, s := range settings {
			if p.json() {
				if err := p.printLines(s); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(&rows, "%s\t%s  (%s)\n", s.Name, s.Value, s.From)
		}
		return p.printTable(&rows)
	})
	return c
}

// setting is a line of explain. Its JSON stays as it is.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`
}

func (p *program) explain() ([]setting, error) {
	t, err := p.target()
	if errors.Is(err, errNoBroker) {
		t, err = target{raw: "none", from: builtIn}, nil
	}
	if err != nil {
		return nil, err
	}
	all := []setting{{"broker", config.Redact(t.raw), t.from}}
	if t.name != "" {
		if err := p.timeoutFrom(t); err != nil {
			return nil, err
		}
		if ref := t.context.Password; ref != "" {
			found := "; it is there"
			if _, err := ref.Resolve(p.look(t.store)); err != nil {
				found = "; it can't be read"
			}
			all = append(all, setting{"password", string(ref), t.from + found})
		}
	}
	colour, from := p.colourFrom(p.out)
	if p.said["color"] != builtIn {
		from = p.said["color"]
	}
	store := config.Locate(p.getenv)
	return append(all,
		setting{"connect-timeout", p.connectTimeout.String(), p.said["connect-timeout"]},
		setting{"output", p.output, p.said["output"]},
		setting{"color", map[bool]string{true: "yes", false: "no"}[colour], from},
		setting{"progress", p.progress, p.said["progress"]},
		setting{"config file", store.Config, there(store.Config)},
		setting{"state file", store.State, there(store.State)},
	), nil
}

func there(path string) string {
	switch _, err := os.Stat(path); {
	case path == "":
		return "nowhere: neither XDG_CONFIG_HOME nor HOME is set"
	case errors.Is(err, fs.ErrNotExist):
		return "doesn't exist"
	case err != nil:
		return "can't be read"
	}
	return "exists"
}
