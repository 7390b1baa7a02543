package main

import (
	"github.com/spf13/cobra"
)

// completeContexts offers the names of contexts. A shell that completes has no place for errors: then there is nothing to offer.
func (p *program) completeContexts(_ *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
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
