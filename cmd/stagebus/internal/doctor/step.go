package doctor

import (
	"fmt"
	"time"
)

// Status is how a step ended.
type Status string

// The values of [Status].
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, and something about it will not for ever or not everywhere
	Fail Status = "fail"
	Skip Status = "skip" // not taken; Detail says why
)

// Step is one thing that was looked at.
type Step struct {
	Name   string // resolve, tcp, tls, version, login, listener, declare, round trip, clock
	Target string // the host or address it was about, if one
	Status Status
	Took   time.Duration
	Detail string // what was found, or why nothing was looked for
	Cause  string // what is wrong, unless all is well
	Do     string // the line to change, or the command to run

	heals bool // it may go by itself, as when a broker is starting
}

// Report is what was found out about one broker.
type Report struct {
	Broker string // its URL without credentials
	Steps  []Step
}

// Status is that of the worst step.
func (r Report) Status() Status {
	worst := OK
	for _, s := range r.Steps {
		switch {
		case s.Status == Fail:
			return Fail
		case s.Status == Warn:
			worst = Warn
		}
	}
	return worst
}

// Failed returns the steps that failed.
func (r Report) Failed() []Step {
	var failed []Step
	for _, s := range r.Steps {
		if s.Status == Fail {
			failed = append(failed, s)
		}
	}
	return failed
}

// heals says that all that failed may go by itself.
func (r Report) heals() bool {
	for _, s := range r.Failed() {
		if !s.heals {
			return false
		}
	}
	return true
}

// finding is what one look gave.
type finding struct {
	status    Status
	detail    string
	cause, do string
	heals     bool
	step      string // the step that it is really about, if another
}

func fine(format string, args ...any) finding {
	return finding{status: OK, detail: fmt.Sprintf(format, args...)}
}

// wrong is what somebody must mend.
func wrong(cause, do string) finding { return finding{status: Fail, cause: cause, do: do} }

// ill is what may heal by itself while a broker is starting.
func ill(cause, do string) finding { return finding{status: Fail, cause: cause, do: do, heals: true} }

func (f finding) ok() bool { return f.status != Fail }

// warn makes a warning of what is fine otherwise.
func (f finding) warn(cause, do string) finding {
	f.status, f.cause, f.do = Warn, cause, do
	return f
}

func (f finding) about(step string) finding {
	f.step = step
	return f
}
