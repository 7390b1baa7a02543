package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: p.does(func(context.Context, []string) error {
			info, _ := debug.ReadBuildInfo()
			line := version(info)
			if p.json() {
				return p.printLines(map[string]any{"version": line})
			}
			_, err := fmt.Fprintln(p.out, line)
			return outputError(err)
		}),
	}
}

// version says what the binary was built from, as far as the build recorded it.
func version(info *debug.BuildInfo) string {
	if info == nil {
		return "stagebus (unknown build)"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	s := "stagebus " + v
	settings := map[string]string{}
	for _, set := range info.Settings {
		settings[set.Key] = set.Value
	}
	if rev := settings["vcs.revision"]; rev != "" {
		s += " " + rev[:min(12, len(rev))]
		if settings["vcs.modified"] == "true" {
			s += "+changes"
		}
	}
	return s + " " + info.GoVersion + " " + settings["GOOS"] + "/" + settings["GOARCH"]
}
