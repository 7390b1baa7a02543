package memory

import (
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func TestSearch(t *testing.T) {
	p := &partition{}
	epoch := time.Unix(0, 0)
	for i := range 6 {
		p.push(stagebus.Message{Time: epoch.Add(time.Duration(i) * time.Second)}, nil)
	}
	p.drop()
	for _, c := range []struct {
		s    stagebus.Start
		want int64
	}{
		{stagebus.Start{}, 1},
		{stagebus.Start{Kind: stagebus.StartEarliest}, 1},
		{stagebus.Start{Kind: stagebus.StartLatest}, 6},
		{stagebus.Start{Kind: stagebus.StartOffset, Offset: 0}, 1},
		{stagebus.Start{Kind: stagebus.StartOffset, Offset: 3}, 3},
		{stagebus.Start{Kind: stagebus.StartOffset, Offset: 1 << 60}, 6},
		{stagebus.Start{Kind: stagebus.StartTime}, 1},
		{stagebus.Start{Kind: stagebus.StartTime, Time: epoch.Add(2 * time.Second)}, 2},
		{stagebus.Start{Kind: stagebus.StartTime, Time: epoch.Add(2*time.Second + 1)}, 3},
		{stagebus.Start{Kind: stagebus.StartTime, Time: epoch.Add(time.Hour)}, 6},
	} {
		if got := p.search(c.s); got != c.want {
			t.Errorf("%+v begins at %d, want %d", c.s, got, c.want)
		}
	}
}

// A log that is pushed to and dropped from keeps its offsets and its sums over any number of turns of the ring.
func TestRing(t *testing.T) {
	p := &partition{}
	for i := range int64(1000) {
		p.push(stagebus.Message{Body: make([]byte, i%7)}, nil)
		if p.next-p.first > 70 {
			p.drop()
		}
		var want load
		for o := max(p.first, p.next-5); o < p.next; o++ {
			if p.at(o).size != o%7 {
				t.Fatalf("offset %d has %d bytes", o, p.at(o).size)
			}
			want.add(load{1, o % 7})
		}
		if got := p.held(max(p.first, p.next-5)); got != want {
			t.Fatalf("held %v, want %v", got, want)
		}
	}
	if len(p.ring) != 128 {
		t.Errorf("71 records need a ring of %d", len(p.ring))
	}
	if got := p.held(p.next); got != (load{}) {
		t.Errorf("held %v at the end", got)
	}
}

// Retries that are settled are forgotten: nobody replays a group's own log.
func TestRetryLogIsDropped(t *testing.T) {
	s := newStore()
	d := &driver{store: s, o: Options{}.withDefaults()}
	to := s.create(d, "t", 1, 10)
	g := to.addGroup("g", stagebus.Start{}, nil)
	for range 3 {
		to.append(to.partitions[0], stagebus.Message{Topic: "t"})
	}
	for offset := range int64(3) {
		g.cursors[0].retry(offset, 0)
	}
	c := g.retries[0]
	c.commit(3)
	if p := c.partition; p.first != 3 || p.next != 3 || p.at(0).Topic != "" {
		t.Errorf("the log keeps %d to %d", p.first, p.next)
	}
}
