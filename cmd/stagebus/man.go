package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (p *program) manCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages into a directory",
		Long: `man writes a manual page for each command into DIR, which it makes: stagebus.1, stagebus-publish.1 and so on. They are
made of what --help says.`,
		Example: `  stagebus man ~/.local/share/man/man1 && man stagebus-consume`,
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = p.does(func(_ context.Context, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		n := 0
		for c := range commands(c.Root()) {
			if err := os.WriteFile(filepath.Join(args[0], pageName(c)+".1"), []byte(page(c)), 0o644); err != nil {
				return err
			}
			n++
		}
		if p.json() {
			return p.printLines(map[string]any{"pages": n, "directory": args[0]})
		}
		p.notef("wrote %s into %s", plural(n, "page"), args[0])
		return nil
	})
	return c
}

// commands yields c and what is below it, without what is hidden.
func commands(c *cobra.Command) func(yield func(*cobra.Command) bool) {
	return func(yield func(*cobra.Command) bool) {
		if c.Hidden || !yield(c) {
			return
		}
		for _, sub := range c.Commands() {
			for s := range commands(sub) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// page is the manual page of c, in the macros of man(7). Not cobra/doc: it takes texts for Markdown, which ours aren't, and needs two
// modules more. There is no date on it, so that the same program always makes the same page.
func page(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 1 \"\" stagebus\n", strings.ToUpper(pageName(c)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.nf\n\\fB%s\\fR\n", roff(c.UseLine()))
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\\fB%s\\fR \\fIcommand\\fR\n", roff(c.CommandPath()))
	}
	b.WriteString(".fi\n")
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n")
		prose(&b, c.Long)
	}
	options(&b, "OPTIONS", c.NonInheritedFlags())
	options(&b, "OPTIONS OF ALL SUCH COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	if !c.HasParent() {
		b.WriteString(".SH ENVIRONMENT\n.nf\n")
		for _, line := range variables {
			b.WriteString(roff(line) + "\n")
		}
		b.WriteString(".fi\n")
		errorsAsJSON(&b)
	}
	seeAlso(&b, c)
	return b.String()
}

// variables is the environment of the command.
var variables = []string{
	"STAGEBUS_BROKER            URL of the broker",
	"STAGEBUS_CONTEXT           name of the context",
	"STAGEBUS_CONNECT_TIMEOUT   as --connect-timeout",
	"STAGEBUS_OUTPUT            as --output",
	"STAGEBUS_COLOR             as --color",
	"STAGEBUS_PROGRESS          as --progress",
	"NO_COLOR, CLICOLOR_FORCE, CLICOLOR, TERM   whether to colour",
	"XDG_CONFIG_HOME, XDG_STATE_HOME, HOME      where contexts are kept",
}

// errorsAsJSON explains what a script may depend on.
func errorsAsJSON(b *strings.Builder) {
	words := "usage (the command line or the configuration), short (fewer messages than asked for), input (what was to be published)"
	for _, k := range kinds {
		words += ", " + k.word
	}
	b.WriteString(".SH ERRORS AS JSON\n")
	prose(b, "With --output json, each line on standard error is an object: {\"note\": …}, or an error with these fields.\n"+
		"  error       what happened, for people; the words may change\n"+
		"  kind        one of the words below\n"+
		"  topic       concerned, if one is\n"+
		"  broker      concerned, its URL without credentials\n"+
		"  hint        what to do about it\n"+
		"  code        the exit code\n"+
		"  published, failed, uncertain   of publish: how many messages\n"+
		"Kinds: "+words+", template, system (a file, the network's address), failure (anything else).")
}

// prose sets paragraphs, and leaves lines that are indented as they are.
func prose(b *strings.Builder, text string) {
	verbatim := false
	for line := range strings.SplitSeq(text, "\n") {
		if indented := strings.HasPrefix(line, "  "); indented != verbatim && line != "" {
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[indented])
			verbatim = indented
		}
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	if verbatim {
		b.WriteString(".fi\n")
	}
}

func options(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		if value != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(value))
		}
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, f.DefValue) {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, "\n%s\n", roff(usage))
	})
}

func seeAlso(b *strings.Builder, c *cobra.Command) {
	var pages []string
	if c.HasParent() {
		pages = append(pages, pageName(c.Parent()))
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			pages = append(pages, pageName(sub))
		}
	}
	if len(pages) > 0 {
		fmt.Fprintf(b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", roff(strings.Join(pages, "(1), ")))
	}
}

// roff escapes what troff would read as its own: backslashes, hyphens, which it makes typographic, and dots and quotes that begin a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
