package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completeTimeout bounds what a shell waits for when a topic is completed.
const completeTimeout = 1500 * time.Millisecond

// completions has the shell complete what the commands from c on take: the words of flags that have a choice, topics, contexts, brokers.
func (p *program) completions(c *cobra.Command) {
	for _, sub := range c.Commands() {
		p.completions(sub)
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		complete := p.completionOf(f)
		if complete == nil {
			return
		}
		// The error says that there is a completion already: a command knows best.
		_ = c.RegisterFlagCompletionFunc(f.Name, complete)
	})
	if c.ValidArgsFunction == nil && c.Runnable() && !c.HasSubCommands() && !strings.Contains(c.Use, "DIR") && !strings.Contains(c.Use, "FILE") {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
}

func (p *program) completionOf(f *pflag.Flag) cobra.CompletionFunc {
	if words, ok := f.Value.(*choice); ok {
		return cobra.FixedCompletions(words.words, cobra.ShellCompDirectiveNoFileComp)
	}
	switch f.Name {
	case "topic", "reply-to":
		return p.completeTopics
	case "context":
		return p.completeContexts
	case "broker":
		return cobra.FixedCompletions([]cobra.Completion{"amqp://", "amqps://", "kafka://", "kafkas://", "memory://"},
			cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
	case "from":
		return cobra.FixedCompletions([]cobra.Completion{"earliest", "latest"}, cobra.ShellCompDirectiveNoFileComp)
	}
	if what, _ := pflag.UnquoteUsage(f); slices.Contains([]string{"file", "dir", "path"}, strings.ToLower(what)) {
		return nil // of the file system
	}
	return cobra.NoFileCompletions
}

// completeContexts offers the names of contexts. A shell that completes has no place for errors: then there is nothing to offer.
func (p *program) completeContexts(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := p.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, n := range s.file.Names() {
		names = append(names, cobra.CompletionWithDesc(n, s.record(n).Broker))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeTopics asks the broker that the command line, the environment or a context names, for a moment. It says nothing when
// there is no answer.
func (p *program) completeTopics(c *cobra.Command, given []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	p.metrics, p.quiet = "", true // this isn't the command that serves them
	b, err := p.open(ctx)
	if err != nil {
		return nil, directive
	}
	defer shut(b, &err)
	infos, err := b.Admin().List(ctx)
	if err != nil {
		return nil, directive
	}
	var names []cobra.Completion
	for _, i := range infos {
		if strings.HasPrefix(i.Name, typed) && !slices.Contains(given, i.Name) {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names, directive
}
