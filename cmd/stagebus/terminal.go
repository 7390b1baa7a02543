package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The values of --color and --progress.
const (
	auto   = "auto"
	always = "always"
	never  = "never"
)

func (p *program) terminalFlags(root *cobra.Command) {
	p.color = auto
	root.PersistentFlags().Var(&choice{&p.color, []string{auto, always, never}}, "color", "`when` to colour: auto (a terminal, unless NO_COLOR says no), always or never")
}

// colour tells whether what goes to w is coloured: --color, then NO_COLOR, CLICOLOR_FORCE and CLICOLOR, then whether w is a terminal.
func (p *program) colour(w io.Writer) bool {
	yes, _ := p.colourFrom(w)
	return yes
}

// colourFrom is colour, and what decided.
func (p *program) colourFrom(w io.Writer) (yes bool, origin string) {
	switch force := p.getenv("CLICOLOR_FORCE"); {
	case p.color == always || p.color == never:
		return p.color == always, "--color"
	case p.getenv("NO_COLOR") != "":
		return false, "NO_COLOR"
	case force != "" && force != "0":
		return true, "CLICOLOR_FORCE"
	case p.getenv("CLICOLOR") == "0":
		return false, "CLICOLOR"
	case !p.terminal(w):
		return false, "not a terminal"
	case p.getenv("TERM") == "dumb":
		return false, "TERM"
	}
	return true, "a terminal"
}

// terminal tells whether somebody sits behind w.
func (p *program) terminal(w io.Writer) bool {
	if s, ok := w.(*syncWriter); ok {
		w = s.w
	}
	return isTerminal(w)
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// choice is the value of a flag that takes one of a few words.
type choice struct {
	to    *string
	words []string
}

func (c *choice) String() string {
	if c.to == nil {
		return ""
	}
	return *c.to
}

// Type is what stands behind the flag's name in the help.
func (*choice) Type() string { return "word" }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		last := len(c.words) - 1
		return fmt.Errorf("it is %s or %s", strings.Join(c.words[:last], ", "), c.words[last])
	}
	*c.to = s
	return nil
}
