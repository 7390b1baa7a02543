package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	progressAfter = time.Second            // what is done by then needs no progress
	progressEvery = 200 * time.Millisecond // how often it is drawn
	rateOver      = 15                     // drawings that the rate is taken over
)

func (p *program) progressFlag(c *cobra.Command) {
	p.progress = auto
	c.Flags().Var(&choice{&p.progress, []string{auto, always, never}}, "progress", "`when` to show progress on standard error: auto (a terminal), always or never")
}

// advance is how far something is.
type advance struct {
	messages    int64
	part, total int64 // of what there is to do; total 0: not known
	bytes       bool  // part and total are bytes, otherwise messages
}

// showProgress draws what look returns until the function that it returns is called: on a line of standard error that is written over, and
// that gives way to whatever else is written there. fits: it may be drawn if that is a terminal.
func (p *program) showProgress(verb string, fits bool, look func() advance) (stop func()) {
	w, ok := p.err.(*syncWriter)
	fits = fits && p.terminal(p.err) && p.getenv("TERM") != "dumb" && !p.json()
	if !ok || p.quiet || p.progress == never || p.progress != always && !fits {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		drawProgress(w, verb, look, quit)
	}()
	return func() {
		close(quit)
		<-done
	}
}

func drawProgress(w *syncWriter, verb string, look func() advance, quit <-chan struct{}) {
	began := time.Now()
	samples := []sample{{began, look()}}
	timer := time.NewTimer(progressAfter)
	defer timer.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-quit:
			w.status("")
			return
		case now := <-timer.C:
			samples = append(samples, sample{now, look()})
			samples = samples[max(0, len(samples)-rateOver):]
			w.status(progressLine(verb, turn, samples, width(w.w)))
			timer.Reset(progressEvery)
		}
	}
}

// sample is an advance at a time.
type sample struct {
	at time.Time
	advance
}

// progressLine is the line to be drawn, at most columns wide.
func progressLine(verb string, turn int, samples []sample, columns int) string {
	first, now := samples[0], samples[len(samples)-1]
	seconds := now.at.Sub(first.at).Seconds()
	rate := func(from, to int64) float64 { return float64(to-from) / max(seconds, 1e-9) }
	count := verb + " " + grouped(now.messages)
	if now.total > 0 && !now.bytes {
		count += " of " + grouped(now.total)
	}
	parts := []string{count, grouped(int64(rate(first.messages, now.messages))) + "/s"}
	if perSecond := rate(first.part, now.part); now.total > 0 && perSecond > 0 {
		left := float64(max(now.total-now.part, 0)) / perSecond
		parts = append(parts, clock(time.Duration(left*float64(time.Second)))+" left")
	}
	if now.bytes { // last: a narrow terminal can do without
		parts = append(parts, size(rate(first.part, now.part))+"/s", fmt.Sprintf("%s of %s", size(float64(now.part)), size(float64(now.total))))
	}
	if now.total == 0 {
		return cut(`|/-\`[turn%4:turn%4+1]+" "+strings.Join(parts, "  "), columns)
	}
	share := min(float64(now.part)/float64(now.total), 1)
	const bar = 20
	full := int(share * bar)
	return cut(fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("=", full), strings.Repeat(" ", bar-full), 100*share, strings.Join(parts, "  ")), columns)
}

func cut(s string, columns int) string { return s[:min(len(s), max(columns-1, 0))] } // all of it is ASCII

// width is the columns of a terminal.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func size(bytes float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if bytes < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", bytes)
			}
			return fmt.Sprintf("%.1f %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.1f TiB", bytes)
}

// clock writes a duration as 1:02:03 or 2:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if h := s / 3600; h > 0 {
		return fmt.Sprintf("%d:%02d:%02d", h, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
