package main

import (
	"errors"
	"regexp"
	"strings"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // the broker or a message failed
	exitUsage   = 2 // the command line is wrong: nothing was done
	exitShort   = 3 // the end, or the time-out, came before the asked count
)

var (
	errInterrupted = errors.New("stopped by a signal")
	// errReaderLeft: whoever read our standard output has what it wanted. Not a failure.
	errReaderLeft = errors.New("the reader of standard output has left")
)

// besides returns what went wrong besides target, which may be joined with others in err; nil: nothing.
func besides(err, target error) error {
	if !errors.Is(err, target) {
		return err
	}
	joined, ok := err.(interface{ Unwrap() []error }) // errors.Join, which wraps nothing around its parts
	if !ok {
		return nil
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		rest = append(rest, besides(e, target))
	}
	return errors.Join(rest...)
}

// usageError is what the user typed wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(s string) error { return &usageError{errors.New(s)} }

// shortError says that fewer messages came than were asked for.
type shortError struct{ reason string }

func (e *shortError) Error() string { return e.reason }

func exitCode(err error) int {
	var wrong *usageError
	var short *shortError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &short):
		return exitShort
	}
	return exitFailure
}

var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s"\\]|\\.)*@`) // a quote in it is behind a backslash

// syntax begins the form of a URL, which adapters.Open shows to who has typed a wrong one.
const syntax = "SCHEME://[USER:PASSWORD@"

// oneLine makes s fit for standard error: one line, and no credentials whatever part of a command line a URL was typed into.
func oneLine(s string) string {
	s = strings.TrimSpace(s)
	s = strings.NewReplacer("\n\n", "; ", "\n", "; ", "\r", "", "\t", " ").Replace(s)
	return userinfo.ReplaceAllStringFunc(s, func(match string) string {
		if match == syntax || !strings.ContainsAny(strings.SplitN(match, "://", 2)[1], ":/") { // a user's name alone
			return match
		}
		return userinfo.ReplaceAllString(match, "$1")
	})
}
