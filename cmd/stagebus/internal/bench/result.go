package bench

import (
	"time"
)

// result is what the phase has found so far.
func (p *phase) result() Round {
	var r Round
	for _, g := range p.gens {
		g.counts(&r.Counts)
	}
	r.Counts.Foreign = p.foreign.Load()
	if err := p.firstError(); err != nil {
		r.Counts.Error = err.Error()
	}
	p.mu.Lock()
	begun := p.begun
	p.mu.Unlock()
	r.Unsent, r.Asked, r.FirstMessage = p.unsent.Load(), p.rate, int64(p.firstAfter)

	rec := p.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	use().perMessage(begun, rec.n, &r.Figures)
	r.Measured = rec.measured
	if spent := rec.last - rec.from; rec.n > 0 && spent > 0 {
		r.Seconds = spent.Seconds()
		r.PerSecond = float64(rec.n) / r.Seconds
		if rec.until > rec.from {
			// What the last messages of a schedule take counts as latency, not as a lower rate: those before the warm-up's end made up for it,
			// and may make more of it than was sent.
			r.PerSecond = max(r.PerSecond, min(p.rate, float64(rec.inTime)/(rec.until-rec.from).Seconds()))
		}
		r.BytesPerSecond = r.PerSecond * float64(rec.bytes) / float64(rec.n)
	}
	if h := rec.latency; h != nil && h.TotalCount() > 0 {
		r.Latency = &Latency{h.ValueAtPercentile(50), h.ValueAtPercentile(90), h.ValueAtPercentile(99), h.ValueAtPercentile(99.9), h.Max()}
	}
	if rec.late.TotalCount() > 0 {
		r.LateP99, r.LateMax = rec.late.ValueAtPercentile(99), rec.late.Max()
	}
	r.Points = rec.points.list(rec.from)
	return r
}

// list is the points from the warm-up on; in that before, nothing is measured.
func (ps *points) list(from time.Duration) []Point {
	var out []Point
	for i, p := range ps.ps {
		at := time.Duration(i) * ps.width
		if at+ps.width <= from {
			continue
		}
		x := Point{At: int64(at), PerSecond: float64(p.n) / ps.width.Seconds()}
		if p.latency != nil {
			x.P50, x.P99 = p.latency.ValueAtPercentile(50), p.latency.ValueAtPercentile(99)
		}
		out = append(out, x)
	}
	return out
}
