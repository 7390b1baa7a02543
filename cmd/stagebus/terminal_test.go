package main

import (
	"io"
	"testing"
)

func TestColour(t *testing.T) {
	for _, c := range []struct {
		color  string
		env    map[string]string
		want   bool
		origin string
	}{
		{auto, nil, false, "not a terminal"},
		{always, nil, true, "--color"},
		{always, map[string]string{"NO_COLOR": "1"}, true, "--color"},
		{never, map[string]string{"CLICOLOR_FORCE": "1"}, false, "--color"},
		{auto, map[string]string{"CLICOLOR_FORCE": "1"}, true, "CLICOLOR_FORCE"},
		{auto, map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, false, "NO_COLOR"},
		{auto, map[string]string{"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, true, "CLICOLOR_FORCE"},
		{auto, map[string]string{"CLICOLOR_FORCE": "0", "CLICOLOR": "0"}, false, "CLICOLOR"},
		{auto, map[string]string{"NO_COLOR": ""}, false, "not a terminal"},
	} {
		p := &program{streams: streams{getenv: func(k string) string { return c.env[k] }}, color: c.color}
		if got, origin := p.colourFrom(io.Discard); got != c.want || origin != c.origin || p.colour(io.Discard) != got {
			t.Errorf("--color %s, %v: %v by %s, want %v by %s", c.color, c.env, got, origin, c.want, c.origin)
		}
	}
}
