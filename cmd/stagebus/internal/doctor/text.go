package doctor

import (
	"fmt"
	"strings"
	"time"
)

// Style is how a report is printed.
type Style struct {
	UTF8   bool // marks instead of words
	Colour bool
}

var (
	marks   = map[Status]string{OK: "✓", Warn: "!", Fail: "✗", Skip: "-"}
	words   = map[Status]string{OK: "ok  ", Warn: "WARN", Fail: "FAIL", Skip: "skip"}
	colours = map[Status]string{OK: "\x1b[32m", Warn: "\x1b[33m", Fail: "\x1b[31m", Skip: "\x1b[2m"}
)

const (
	plainColour = "\x1b[0m"
	nameWidth   = len(stepRoundTrip)
	tookWidth   = len("99.9 ms")
)

// Text is the report for people: a line for each step, and under what is wrong its cause and what to do.
func (r Report) Text(style Style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Broker)
	hosts := 0
	for _, s := range r.Steps {
		if s.Name == stepResolve && s.Status != Skip {
			hosts++
		}
	}
	for i := 0; i < len(r.Steps); i++ {
		s := r.Steps[i]
		name := s.Name
		for s.Status == Skip && i+1 < len(r.Steps) && r.Steps[i+1].Status == Skip && r.Steps[i+1].Detail == s.Detail {
			i++
			name += ", " + r.Steps[i].Name // what is skipped for one reason is one line
		}
		mark := words[s.Status]
		if style.UTF8 {
			mark = marks[s.Status]
		}
		if style.Colour {
			mark = colours[s.Status] + mark + plainColour
		}
		if s.Status == Skip {
			fmt.Fprintf(&b, "  %s %s: %s\n", mark, name, s.Detail)
			continue
		}
		line := fmt.Sprintf("  %s %-*s %*s  %s", mark, nameWidth, name, tookWidth, took(s.Took), what(s, hosts > 1))
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(line, " "))
		if s.Cause != "" {
			fmt.Fprintf(&b, "      cause: %s\n", s.Cause)
		}
		if s.Do != "" {
			fmt.Fprintf(&b, "      do:    %s\n", s.Do)
		}
	}
	return b.String()
}

// what is what a step was about and what it found. several: the URL has several hosts, so that each has to be named.
func what(s Step, several bool) string {
	switch {
	case s.Detail == "" || s.Target == "":
		return s.Target + s.Detail
	case strings.Contains(s.Detail, s.Target):
		return s.Detail
	case several || s.Name == stepListener:
		return s.Target + ": " + s.Detail
	}
	return s.Detail
}

func took(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return Brief(d)
}

// Record is the report for programs.
type Record struct {
	Broker string       `json:"broker"`
	Status Status       `json:"status"`
	Steps  []StepRecord `json:"steps"`
}

// StepRecord is a [Step] for programs.
type StepRecord struct {
	Name   string  `json:"name"`
	Target string  `json:"target,omitempty"`
	Status Status  `json:"status"`
	Ms     float64 `json:"ms"`
	Detail string  `json:"detail,omitempty"`
	Cause  string  `json:"cause,omitempty"`
	Do     string  `json:"do,omitempty"`
}

// Record returns the report for programs.
func (r Report) Record() Record {
	rec := Record{Broker: r.Broker, Status: r.Status(), Steps: []StepRecord{}}
	for _, s := range r.Steps {
		rec.Steps = append(rec.Steps, StepRecord{s.Name, s.Target, s.Status, float64(s.Took.Microseconds()) / 1000, s.Detail, s.Cause, s.Do})
	}
	return rec
}
