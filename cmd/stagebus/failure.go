package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/stagebus/stagebus"
)

// failure is an error as --output json prints it on standard error, on one line. Its fields stay as they are.
type failure struct {
	Error  string `json:"error"`
	Kind   string `json:"kind"`
	Topic  string `json:"topic,omitempty"`
	Broker string `json:"broker,omitempty"`
	Hint   string `json:"hint,omitempty"` // what to do about it
	Code   int    `json:"code"`           // the exit code

	*counts // of publish
}

// kinds is the words for what went wrong, the first that fits.
var kinds = []struct {
	err  error
	word string
}{
	{errInterrupted, "interrupted"},
	{stagebus.ErrUncertain, "uncertain"},
	{stagebus.ErrAuth, "auth"},
	{stagebus.ErrNoRoute, "no-route"},
	{stagebus.ErrNotFound, "not-found"},
	{stagebus.ErrTooLarge, "too-large"},
	{stagebus.ErrConflict, "conflict"},
	{stagebus.ErrUnsupported, "unsupported"},
	{stagebus.ErrRefused, "refused"},
	{stagebus.ErrUnavailable, "unavailable"},
	{stagebus.ErrInvalid, "invalid"},
	{stagebus.ErrStale, "stale"},
	{stagebus.ErrClosed, "closed"},
	{context.DeadlineExceeded, "timeout"},
}

func kindOf(err error) string {
	switch exitCode(err) {
	case exitUsage:
		return "usage"
	case exitShort:
		return "short"
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.word
		}
	}
	return "failure"
}

func newFailure(err error) failure {
	f := failure{Error: err.Error(), Kind: kindOf(err), Code: exitCode(err)}
	var e *stagebus.Error
	if errors.As(err, &e) {
		f.Topic, f.Broker, f.Hint = e.Topic, e.Broker, advice(e)
		if e.Do != "" {
			f.Error = strings.Replace(f.Error, "; "+e.Do, "", 1)
		}
	}
	var counted *countedError
	if errors.As(err, &counted) {
		f.counts = &counted.counts
	}
	return f
}

// message is err for people: with the hint where the library's was.
func message(err error) string {
	var e *stagebus.Error
	s := err.Error()
	if !errors.As(err, &e) {
		return s
	}
	hint := advice(e)
	switch {
	case hint == e.Do:
	case e.Do != "":
		s = strings.Replace(s, "; "+e.Do, "; "+hint, 1)
	case hint != "":
		s += "; " + hint
	}
	return s
}

// advice is what to do about e in the shell: the library speaks of options where a command has flags.
func advice(e *stagebus.Error) string {
	return e.Do
}

// fail says on standard error why the command ends, and returns its exit code.
func (p *program) fail(err error, args []string) int {
	if !p.ran {
		err = &usageError{err}
	}
	if !p.wantsJSON(args) {
		s := message(err)
		if !p.ran {
			s += " (see stagebus --help)"
		}
		p.say(s)
		return exitCode(err)
	}
	f := newFailure(err)
	f.Error, f.Hint = oneLine(f.Error), oneLine(f.Hint)
	p.sayJSON(f)
	return f.Code
}

// wantsJSON is json where a command line that can't be read may not have come to its --output.
func (p *program) wantsJSON(args []string) bool {
	if p.ran {
		return p.json()
	}
	for i, a := range args {
		switch {
		case a == "--":
			return p.json()
		case slices.Contains([]string{"--output=json", "-ojson", "-o=json"}, a):
			return true
		case (a == "--output" || a == "-o") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return p.json() || p.getenv(variable("output")) == "json"
}

// sayJSON writes v to standard error, on a line.
func (p *program) sayJSON(v any) {
	e := json.NewEncoder(p.err)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // if it is closed, there is nobody to tell
}
