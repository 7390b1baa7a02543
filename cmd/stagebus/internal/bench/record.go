package bench

import (
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// What histograms hold: from a microsecond to an hour, within a thousandth. What is longer counts as an hour.
const (
	shortest = int64(time.Microsecond)
	longest  = int64(time.Hour)
)

// recorder keeps the figures of one phase. All times count from the phase's start. Its memory doesn't grow.
type recorder struct {
	until time.Duration // the end of the schedule, 0 for none
	from  time.Duration // the end of the warm-up: what is completed after it makes rates
	dues  time.Duration // what was due after it is measured; the same, unless messages were sent before all is measured

	mu          sync.Mutex // protects the following
	latency     *hdrhistogram.Histogram
	late        *hdrhistogram.Histogram // how much later than it should the generator itself was
	measured    int64                   // messages due after the warm-up
	n, bytes    int64                   // completed after the warm-up: what rates are made of
	inTime      int64                   // of n, those before the end of the schedule
	first, last time.Duration           // completions
	started     bool
	points      points
}

func newRecorder(from time.Duration, open bool) *recorder {
	r := &recorder{from: from, dues: from, late: hdrhistogram.New(shortest, longest, 2)}
	if open {
		r.latency = hdrhistogram.New(shortest, longest, 3)
	}
	r.points.open = open
	return r
}

// completed notes messages that are done at now: confirmed, received or answered. due is when each was to be sent.
func (r *recorder) completed(now time.Duration, due []time.Duration, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now < r.from || len(due) == 0 {
		return
	}
	if !r.started {
		r.started, r.first = true, now
	}
	r.n += int64(len(due))
	r.bytes += bytes
	if now <= r.until {
		r.inTime += int64(len(due))
	}
	r.last = max(r.last, now)
	r.points.at(now).n += int64(len(due))
	for _, d := range due {
		if d < r.dues {
			continue
		}
		r.measured++
		if r.latency != nil {
			v := clamp(now - d)
			_ = r.latency.RecordValue(v) // clamped, so it can't fail
			_ = r.points.at(d).hist().RecordValue(v)
		}
	}
}

// wasLate notes that the generator came so much later than the schedule and the broker let it.
func (r *recorder) wasLate(now, by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now >= r.from {
		_ = r.late.RecordValue(clamp(by))
	}
}

// count returns the messages completed so far, warm-up excluded.
func (r *recorder) count() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func clamp(d time.Duration) int64 { return min(max(int64(d), shortest), longest) }

// points are a phase over time: at most maxPoints stretches of one width, which doubles when they are full.
type points struct {
	open  bool
	width time.Duration
	ps    []*point
}

const (
	maxPoints   = 120
	pointsWidth = 100 * time.Millisecond
)

type point struct {
	n       int64                   // completed in this stretch
	latency *hdrhistogram.Histogram // of messages due in this stretch; nil for none
}

func (p *point) hist() *hdrhistogram.Histogram {
	if p.latency == nil {
		p.latency = hdrhistogram.New(shortest, longest, 2)
	}
	return p.latency
}

func (p *points) at(t time.Duration) *point {
	if p.width == 0 {
		p.width = pointsWidth
	}
	for int(t/p.width) >= maxPoints {
		p.halve()
	}
	i := max(0, int(t/p.width))
	for len(p.ps) <= i {
		p.ps = append(p.ps, &point{})
	}
	return p.ps[i]
}

func (p *points) halve() {
	p.width *= 2
	for i := 0; i < len(p.ps); i += 2 {
		q := p.ps[i]
		if i+1 < len(p.ps) {
			o := p.ps[i+1]
			q.n += o.n
			if o.latency != nil {
				q.hist().Merge(o.latency)
			}
		}
		p.ps[i/2] = q
	}
	p.ps = slices.Delete(p.ps, (len(p.ps)+1)/2, len(p.ps))
}
