package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json, see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type report struct {
	w       io.Writer
	pending map[string]map[string]*strings.Builder // by package, then test: output that is not yet known to matter
	passed  map[string]int                         // tests by package, subtests included
	skipped map[string]int
	skips   []skip
	lines   []string // go test's own, one a package
}

type skip struct{ reason, test string }

func newReport(w io.Writer) *report {
	return &report{
		w:       w,
		pending: map[string]map[string]*strings.Builder{},
		passed:  map[string]int{},
		skipped: map[string]int{},
	}
}

func (r *report) print(s string) { _, _ = io.WriteString(r.w, s) }

func (r *report) event(e event) {
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "output":
		r.output(e)
	case "pass", "bench":
		if e.Test != "" {
			r.passed[e.Package]++
			delete(r.pending[e.Package], e.Test)
			return
		}
		r.done(e)
	case "skip":
		if e.Test != "" {
			r.skipped[e.Package]++
			r.skips = append(r.skips, skip{reason(r.take(e.Package, e.Test)), short(e.Package) + " " + e.Test})
			return
		}
		r.done(e)
	case "fail":
		if e.Test != "" {
			r.print(r.take(e.Package, e.Test))
			return
		}
		// What a panic or a time-out interrupted has no end of its own.
		tests := make([]string, 0, len(r.pending[e.Package]))
		for t := range r.pending[e.Package] {
			tests = append(tests, t)
		}
		slices.Sort(tests)
		for _, t := range tests {
			r.print(r.take(e.Package, t))
		}
		r.done(e)
	}
}

var packageLine = regexp.MustCompile(`^(ok  |FAIL|\?   )\t`)

func (r *report) output(e event) {
	if e.Test == "" {
		if packageLine.MatchString(e.Output) {
			r.lines = append(r.lines, e.Output)
			return
		}
		if e.Output == "PASS\n" || e.Output == "FAIL\n" {
			return
		}
	}
	for _, noise := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "} {
		if strings.HasPrefix(e.Output, noise) {
			return
		}
	}
	tests := r.pending[e.Package]
	if tests == nil {
		tests = map[string]*strings.Builder{}
		r.pending[e.Package] = tests
	}
	if tests[e.Test] == nil {
		tests[e.Test] = &strings.Builder{}
	}
	tests[e.Test].WriteString(e.Output)
}

func (r *report) take(pkg, test string) string {
	b := r.pending[pkg][test]
	if b == nil {
		return ""
	}
	delete(r.pending[pkg], test)
	return b.String()
}

// done ends a package with a line of progress; go test's own line is kept for the end.
func (r *report) done(e event) {
	delete(r.pending, e.Package)
	if n := r.passed[e.Package] + r.skipped[e.Package]; n > 0 || e.Action == "fail" {
		failed := ""
		if e.Action == "fail" {
			failed = " FAILED"
		}
		_, _ = fmt.Fprintf(r.w, "%7.1f s  %s%s: %d passed, %d skipped\n", e.Elapsed, short(e.Package), failed, r.passed[e.Package], r.skipped[e.Package])
	}
}

var place = regexp.MustCompile(`^\S+\.go:\d+: `)

// reason is what a skipped test said, without where in the code it said it.
func reason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- SKIP") {
			words = append(words, place.ReplaceAllString(line, ""))
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

func short(pkg string) string {
	s := strings.TrimPrefix(pkg, "github.com/stagebus/")
	return strings.TrimPrefix(s, "stagebus/")
}

// summary prints what was skipped, by reason, and go test's lines.
func (r *report) summary() {
	if len(r.skips) == 0 {
		r.print("\nnothing was skipped\n\n")
	} else {
		_, _ = fmt.Fprintf(r.w, "\nskipped: %d\n", len(r.skips))
		slices.SortStableFunc(r.skips, func(a, b skip) int { return strings.Compare(a.reason, b.reason) })
		for i, s := range r.skips {
			if i == 0 || s.reason != r.skips[i-1].reason {
				r.print("  " + s.reason + "\n")
			}
			r.print("      " + s.test + "\n")
		}
		r.print("\n")
	}
	for _, l := range r.lines {
		r.print(l)
	}
}
