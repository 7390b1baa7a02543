package bench

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// nobody settles without doing anything.
type nobody struct{}

func (nobody) Receive(context.Context, []stagebus.Delivery) (int, error) { return 0, io.EOF }
func (nobody) Settle(context.Context, stagebus.Verdict, ...stagebus.Token) error {
	return nil
}
func (nobody) Flush(context.Context) error { return nil }
func (nobody) Close(context.Context) error { return nil }

// What bench itself does for a message between two ends that do nothing: making it, its outcome, its arrival.
func BenchmarkOverhead(b *testing.B) {
	s := Defaults(Both)
	p := newPhase(s, &Target{kind: Memory}, 1000, 0, "t")
	p.start = time.Now()
	g := newGenerator(p, 0, nil)
	p.gens = []*generator{g}
	a := &arrivals{p: p, c: nobody{}}
	ds := make([]stagebus.Delivery, s.Batch)
	os := make([]stagebus.Outcome, s.Batch)
	due := p.now()
	b.ReportAllocs()
	before, _ := cpuTime()
	for n := 0; n < b.N; n += s.Batch {
		g.dues = g.dues[:0]
		for range s.Batch {
			g.dues = append(g.dues, due)
		}
		f := g.flight()
		g.next += uint64(len(f.ms))
		for i := range f.ms {
			ds[i].Message = f.ms[i]
		}
		if err := a.take(b.Context(), ds); err != nil {
			b.Fatal(err)
		}
		g.outcomes(f, os)
	}
	if after, ok := cpuTime(); ok { // on a busy machine this says more than the time
		b.ReportMetric(float64(after-before)/float64(b.N), "cpu-ns/message")
	}
	if g.book.lost() != 0 || g.book.doubled != 0 {
		b.Fatalf("%+v", g.book)
	}
}
