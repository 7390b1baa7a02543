package bench

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/guptarohit/asciigraph"
)

const (
	plotWidth  = 64
	plotHeight = 8
	fewPoints  = 3 // no plot of less
)

// WritePlot draws the last round of each row over time: messages a second as fast as possible, else the p99 latency.
func (r *Report) WritePlot(w io.Writer) error {
	var b strings.Builder
	for i := range r.Rows {
		row := &r.Rows[i]
		round := &row.Rounds[len(row.Rounds)-1]
		if len(round.Points) < fewPoints {
			continue
		}
		caption := "messages/s"
		points := round.Points
		value := func(p Point) float64 { return p.PerSecond }
		if round.Latency != nil {
			caption = "p99 in ms"
			value = func(p Point) float64 {
				if p.P99 == 0 {
					return math.NaN() // nothing was due
				}
				return float64(p.P99) / 1e6
			}
		} else {
			points = points[:len(points)-1] // the last is a part of a stretch
		}
		data := make([]float64, len(points))
		for i, p := range points {
			data[i] = value(p)
		}
		where := Size(row.Size)
		if l := r.letter(row.Broker); l != "" {
			where = l + ", " + where
		}
		last := points[len(points)-1].At
		caption = fmt.Sprintf("%s, %s, from %s to %s: %s", where, r.title(row.Load), short(points[0].At), short(last), caption)
		fmt.Fprintf(&b, "\n%s\n", asciigraph.Plot(data, asciigraph.Width(plotWidth), asciigraph.Height(plotHeight), asciigraph.Precision(precision(data)), asciigraph.Caption(caption), asciigraph.LowerBound(0)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// precision is how many digits behind the point the axis needs.
func precision(data []float64) uint {
	most := 0.0
	for _, v := range data {
		if !math.IsNaN(v) {
			most = max(most, v)
		}
	}
	switch {
	case most >= 100:
		return 0
	case most >= 10:
		return 1
	}
	return 2
}
