package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
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
	if _, ok := errors.AsType[*inputError](err); ok {
		return "input"
	}
	if _, ok := errors.AsType[*templateError](err); ok {
		return "template"
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return "system"
	}
	return "failure"
}

func newFailure(err error) failure {
	text, hint := spoken(err)
	f := failure{Error: text, Hint: hint, Kind: kindOf(err), Code: exitCode(err)}
	if e, ok := errors.AsType[*stagebus.Error](err); ok {
		f.Topic, f.Broker = e.Topic, e.Broker
	}
	if e, ok := errors.AsType[*countedError](err); ok {
		f.counts = &e.counts
	}
	return f
}

// spoken is err in the words of the shell, and what to do about it. The library speaks of its options and calls, where a command has
// flags and commands: both are told by type and replaced.
func spoken(err error) (text, hint string) {
	text = err.Error()
	if e, ok := errors.AsType[*stagebus.InvalidError](err); ok {
		text = strings.Replace(text, e.Error(), invalidFlag(e), 1)
	}
	if e, ok := errors.AsType[*stagebus.Error](err); ok {
		hint = advice(e)
		if e.Do != "" {
			text = strings.Replace(text, "; "+e.Do, "", 1)
		}
	}
	return text, hint
}

// flagOf is where the fields of invalid errors come from.
var flagOf = map[string]string{
	"ConsumerOptions.Topics": "--topic",
	"ConsumerOptions.Start":  "--from",
	"ConsumerOptions.Group":  "--group",
	"partitions":             "--partitions",
}

func invalidFlag(e *stagebus.InvalidError) string {
	flag, ok := flagOf[e.Field]
	switch {
	case !ok && e.Value == "":
		return fmt.Sprintf("invalid %s: %s", e.Field, e.Reason)
	case !ok:
		return e.Error()
	case e.Value == "":
		return flag + ": " + e.Reason
	}
	return fmt.Sprintf("%s %q: %s", flag, e.Value, e.Reason)
}

// advice is what to do about e, if the library's own words are not for the shell.
func advice(e *stagebus.Error) string {
	_, queue := stagebus.RawQueue(e.Topic)
	_, raw := stagebus.RawTopic(e.Topic)
	switch {
	case e.Op == "connect" && errors.Is(e.Cause, context.DeadlineExceeded):
		return "nothing answered there: is the broker running and reachable? --connect-timeout gives it longer; " + lookCloser
	case e.Op == "connect":
		return e.Do + "; " + lookCloser
	case e.Topic == "" || queue || raw: // the broker's own names
	case errors.Is(e.Kind, stagebus.ErrNoRoute), errors.Is(e.Kind, stagebus.ErrNotFound) && e.Op == "consume":
		return fmt.Sprintf("make it with stagebus topics declare %s, or add --create", e.Topic)
	case errors.Is(e.Kind, stagebus.ErrNotFound) && e.Op == "send": // a partition
		return fmt.Sprintf("stagebus topics describe %s shows which there are", e.Topic)
	case errors.Is(e.Kind, stagebus.ErrNotFound):
		return "stagebus topics list shows which there are"
	}
	return e.Do
}

const lookCloser = "stagebus doctor looks closer"

// fail says on standard error why command c ends, and returns its exit code.
func (p *program) fail(c *cobra.Command, err error, args []string) int {
	if !p.ran {
		err = &usageError{err}
	}
	f := newFailure(err)
	f.Error, f.Hint = oneLine(f.Error), oneLine(f.Hint)
	if p.wantsJSON(args) {
		p.sayJSON(f)
		return f.Code
	}
	s := f.Error
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	if !p.ran {
		s += fmt.Sprintf(" (see %s --help)", c.CommandPath())
	}
	p.say(s)
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
