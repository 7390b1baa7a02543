package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo"
)

// demoView shows how the demo goes, on standard error: a line that changes at a terminal, else a line from time to time.
type demoView struct {
	p    *program
	live *syncWriter // nil: plain lines

	mu    sync.Mutex // protects the following
	shown time.Time  // when a line was
	last  rate
}

// rate is a count at a time.
type rate struct {
	at time.Time
	n  int64
}

// plainEvery is how often a plain line is written, and liveEvery how often the line at a terminal is.
const (
	plainEvery = 2 * time.Second
	liveEvery  = 100 * time.Millisecond
)

func newDemoView(p *program) *demoView {
	v := &demoView{p: p, last: rate{at: time.Now()}}
	if w, ok := p.err.(*syncWriter); ok && !p.quiet && !p.json() && p.terminal(w) && p.getenv("TERM") != "dumb" {
		v.live = w
	}
	return v
}

// note writes a line.
func (v *demoView) note(s string) { v.p.notef("%s", s) }

// progress shows a step of training.
func (v *demoView) progress(p demo.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	every := plainEvery
	if v.live != nil {
		every = liveEvery
	}
	if v.p.quiet || p.Perplexity == 0 && now.Sub(v.shown) < every {
		return
	}
	v.shown = now
	s := fmt.Sprintf("step %d of %d: loss %.3f", p.Step, p.Steps, p.Loss)
	if v.live != nil {
		v.live.status(v.bar(p) + " " + s + v.speed(now))
		if p.Perplexity > 0 { // it stays
			v.note(fmt.Sprintf("%s, held-out perplexity %.1f", s, p.Perplexity))
		}
		return
	}
	if p.Perplexity > 0 {
		s += fmt.Sprintf(", held-out perplexity %.1f", p.Perplexity)
	}
	v.note(s + v.speed(now))
}

func (v *demoView) bar(p demo.Progress) string {
	const width = 24 // with the words behind it less than 80 columns: a line that wraps can't be taken back
	done := width * p.Step / max(p.Steps, 1)
	bar := strings.Repeat("█", done) + strings.Repeat("░", width-done)
	if v.p.colour(v.p.err) {
		return green + bar + plain
	}
	return bar
}

// speed is how many messages this process has received since it was asked last.
func (v *demoView) speed(now time.Time) string {
	var n int64
	for _, t := range v.p.meter.Topics() {
		n += t.Received
	}
	took := now.Sub(v.last.at).Seconds()
	per := float64(n-v.last.n) / max(took, 1e-3)
	v.last = rate{now, n}
	return fmt.Sprintf(", %.0f messages/s", per)
}

// close takes the changing line away.
func (v *demoView) close() {
	if v.live != nil {
		v.live.status("")
	}
}

// print writes the summary to standard output.
func (d *demoCommand) print(s *demo.Summary) error {
	if d.p.json() {
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		return d.p.write(string(b) + "\n")
	}
	var b strings.Builder
	t := s.Trained
	fmt.Fprintf(&b, "%s: %d paragraphs, %d tokens, %.0f%% of them stop words, %d held out; a vocabulary of %d\n",
		t.Text, t.Paragraphs, t.Tokens, 100*t.StopWords, t.HeldOut, t.Words)
	for _, n := range t.Near {
		fmt.Fprintf(&b, "  %s keeps company like %s\n", n.Word, strings.Join(n.Like, ", "))
	}
	fmt.Fprintf(&b, "\nAnswers, each a stream of tokens from one of two workers:\n")
	for _, a := range s.Answers {
		fmt.Fprintf(&b, "  [%s] %s\n", a.Worker, a.Answer)
	}
	fmt.Fprintf(&b, "\n%s\n%s\n", traffic(s), training(t))
	for _, c := range s.Claims {
		fmt.Fprintf(&b, "%s %s: %s\n", d.mark(c.Holds), c.Name, c.Detail)
	}
	fmt.Fprintf(&b, "%d messages, %s in %.1f s over %s\n", s.Messages, amount(s.Bytes), s.Seconds, s.Broker)
	return d.p.write(b.String())
}

// The colours, and the end of them.
const (
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

func (d *demoCommand) mark(holds bool) string {
	mark, colour := "ok    ", green
	if !holds {
		mark, colour = "FAILED", red
	}
	if d.p.colour(d.p.out) {
		return colour + mark + plain
	}
	return mark
}

func traffic(s *demo.Summary) string {
	rows := [][]string{{"topic", "sent", "received", "bytes", "p50 ms", "p99 ms"}}
	for _, t := range s.Topics {
		rows = append(rows, []string{
			t.Topic, fmt.Sprint(t.Sent), fmt.Sprint(t.Received), amount(t.Bytes), fmt.Sprintf("%.1f", t.P50), fmt.Sprintf("%.1f", t.P99),
		})
	}
	return figures(rows)
}

func training(t *demo.Trained) string {
	return figures([][]string{
		{"held out", "before", "after", "word frequencies alone"},
		{"loss", fmt.Sprintf("%.3f", t.LossBefore), fmt.Sprintf("%.3f", t.LossAfter), fmt.Sprintf("%.3f", t.LossUnigram)},
		{"perplexity", fmt.Sprintf("%.1f", t.Before), fmt.Sprintf("%.1f", t.After), fmt.Sprintf("%.1f", t.Unigram)},
	}) + fmt.Sprintf("%d parameters, %d steps of %d examples in %.1f s\n", t.Parameters, t.Steps, t.Batch, t.Seconds)
}

// figures is a table with names on the left and figures, which are aligned at their right ends.
func figures(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			fmt.Fprintf(&b, "  %*s", widths[i+1], cell)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// amount writes a number of bytes with a unit, as in 1.5 MB.
func amount(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// write writes to standard output.
func (p *program) write(s string) error {
	_, err := io.WriteString(p.out, s)
	return outputError(err)
}
