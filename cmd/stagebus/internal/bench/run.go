package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Progress is where a run is. Elapsed and Total are of the measurement under way; Total is 0 if only its count says when it ends.
type Progress struct {
	Step, Steps    int
	Broker         string
	What           string // such as "1 KB, as fast as possible"
	Messages       int64
	Elapsed, Total time.Duration
}

// Runner measures targets.
type Runner struct {
	targets []*Target
	s       Settings
	report  Report
}

// New returns a runner for targets that are open. version is this program's. An error says which setting is wrong.
func New(version string, targets []*Target, s Settings) (*Runner, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	r := &Runner{targets: targets, s: s, report: Report{
		Format: ReportFormat, Version: ReportVersion, Time: time.Now().UTC(), Run: runID(), Machine: machine(version), Settings: s,
	}}
	for _, t := range targets {
		r.report.Brokers = append(r.report.Brokers, t.describe(s))
	}
	return r, nil
}

// Report is what has been measured so far; before Run, it says what will be.
func (r *Runner) Report() *Report { return &r.report }

// Run measures. The targets take turns in each round, so that what changes on the machine meanwhile meets all of them. When ctx ends, what was begun
// comes to its end within seconds and topics are deleted; the report then has what was measured. watch is called now and then, by one
// goroutine at a time. Messages that are lost aren't an error of Run: the report counts them.
func (r *Runner) Run(ctx context.Context, watch func(Progress)) error {
	loads := []string{LoadMax, LoadHalf}
	switch {
	case r.s.Mode == Consume:
		loads = loads[:1]
	case r.s.Rate > 0:
		loads = []string{LoadRate}
	}
	step := 0
	now := Progress{Steps: r.s.Rounds * len(r.s.Sizes) * len(r.targets) * len(loads), Total: r.s.Warmup + r.s.Duration}
	if r.s.Duration == 0 || r.s.Mode == Consume {
		now.Total = 0
	}
	for range r.s.Rounds {
		for _, size := range r.s.Sizes {
			for i, t := range r.targets {
				rate := r.s.Rate
				for _, load := range loads {
					step++
					if load == LoadHalf && rate < 1e-3 {
						continue // nothing arrived at all
					}
					topic := r.s.Topic
					if topic == "" {
						topic = fmt.Sprintf("stagebus-bench.%s.%d", r.report.Run, step)
					}
					now.Step, now.Broker, now.What = step, t.url, fmt.Sprintf("%s, %s", Size(size), loadText(load, rate))
					now.Messages, now.Elapsed = 0, 0
					watch(now)
					p := newPhase(r.s, t, size, rate, topic)
					round, err := p.run(ctx, func(n int64, elapsed time.Duration) {
						now.Messages, now.Elapsed = n, elapsed
						watch(now)
					})
					if round.Counts.Confirmed+round.Counts.Failed+round.Counts.Uncertain > 0 {
						r.report.add(i, size, load, round)
					}
					if ctx.Err() != nil {
						err = errors.Join(context.Cause(ctx), p.left) // other errors may come of the interrupt
					}
					if err != nil {
						r.report.Interrupted = true
						return err
					}
					rate = round.PerSecond / 2
				}
			}
		}
	}
	return nil
}

func loadText(load string, rate float64) string {
	switch load {
	case LoadMax:
		return "as fast as possible"
	case LoadHalf:
		return "half of that"
	}
	return figures(rate) + " a second"
}

// runID tells the topics of this run from those of others.
func runID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
