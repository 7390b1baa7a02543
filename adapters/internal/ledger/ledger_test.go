package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// add records n deliveries of 10 bytes with the marks 1 to n and themselves as values.
func add(t testing.TB, l *ledger.Ledger[int64], n int64) (seqs []int64) {
	t.Helper()
	for i := range n {
		seq, ok := l.Add(i+1, 10, i+1)
		if !ok {
			t.Fatal("Add refused")
		}
		seqs = append(seqs, seq)
	}
	return seqs
}

func wantMark(t testing.TB, l *ledger.Ledger[int64], mark int64, moved bool) {
	t.Helper()
	if m, ok := l.Mark(); m != mark || ok != moved {
		t.Errorf("Mark is %d, %v, want %d, %v", m, ok, mark, moved)
	}
}

func wantOpen(t testing.TB, l *ledger.Ledger[int64], n int, bytes int64) {
	t.Helper()
	if gn, gb, oldest := l.Open(); gn != n || gb != bytes || oldest.IsZero() != (n == 0) {
		t.Errorf("Open is %d, %d, %v, want %d, %d", gn, gb, oldest, n, bytes)
	}
}

func TestPrefix(t *testing.T) {
	l := ledger.New[int64]()
	wantMark(t, l, 0, false)
	s := add(t, l, 4)
	wantOpen(t, l, 4, 40)
	for _, step := range []struct {
		settle int
		mark   int64
		moved  bool
	}{{2, 0, false}, {0, 1, true}, {3, 1, false}, {1, 4, true}} {
		if !l.Settle(s[step.settle]) {
			t.Fatal("Settle refused")
		}
		wantMark(t, l, step.mark, step.moved)
		wantMark(t, l, step.mark, false)
	}
	wantOpen(t, l, 0, 0)
}

func TestSpan(t *testing.T) {
	l := ledger.New[int]()
	first, _ := l.Add(1, 1, 0)
	for mark := range int64(9) {
		seq, _ := l.Add(mark+2, 1, 0)
		l.Settle(seq)
	}
	if l.Span() != 10 {
		t.Errorf("behind an open delivery %d are remembered, want 10", l.Span())
	}
	if l.Settle(first); l.Span() != 0 {
		t.Errorf("%d are remembered when all is settled", l.Span())
	}
}

func TestStale(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 2)
	l.Settle(s[1])
	for name, seq := range map[string]int64{"settled": s[1], "never given": s[1] + 1<<16, "wrong generation": s[0] + 1, "negative": -1} {
		if _, ok := l.Claim(seq); ok || l.Settle(seq) || l.Drop(seq) {
			t.Errorf("%s: accepted", name)
		}
		if _, _, ok := l.Reissue(seq); ok {
			t.Errorf("%s: reissued", name)
		}
		l.Unclaim(seq)
	}
	l.Settle(s[0])
	if l.Settle(s[0]) {
		t.Error("settled twice")
	}
	wantMark(t, l, 2, true)
}

func TestClaim(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 1)
	if v, ok := l.Claim(s[0]); !ok || v != 1 {
		t.Fatalf("Claim: %v, %v", v, ok)
	}
	if _, ok := l.Claim(s[0]); ok {
		t.Error("claimed twice")
	}
	if _, _, ok := l.Reissue(s[0]); ok {
		t.Error("reissued while claimed")
	}
	wantOpen(t, l, 1, 10)
	l.Unclaim(s[0])
	if v, ok := l.Claim(s[0]); !ok || v != 1 {
		t.Fatalf("Claim after Unclaim: %v, %v", v, ok)
	}
	if !l.Settle(s[0]) {
		t.Error("the claimed one can't be settled")
	}
	wantMark(t, l, 1, true)
}

// What was settled on its own on the broker is never named, and holds up nothing.
func TestDrop(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 3)
	l.Drop(s[2])
	l.Drop(s[0])
	wantMark(t, l, 0, false)
	l.Settle(s[1])
	wantMark(t, l, 2, true)
	wantOpen(t, l, 0, 0)
}

func TestReissue(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 2)
	seq := s[0]
	for range 3 {
		v, next, ok := l.Reissue(seq)
		if !ok || v != 1 || next == seq || l.Settle(seq) {
			t.Fatalf("Reissue: %d, %d, %v", v, next, ok)
		}
		seq = next
	}
	l.Settle(s[1])
	wantMark(t, l, 0, false)
	l.Settle(seq)
	wantMark(t, l, 2, true)
}

func TestAdvance(t *testing.T) {
	l := ledger.New[int64]()
	l.Advance(5)
	wantMark(t, l, 5, true)
	l.Advance(4) // behind
	wantMark(t, l, 5, false)
	a, _ := l.Add(6, 1, 0)
	l.Advance(8)
	l.Advance(9)
	wantMark(t, l, 5, false)
	b, _ := l.Add(10, 1, 0)
	l.Settle(a)
	wantMark(t, l, 9, true)
	l.Settle(b)
	wantMark(t, l, 10, true)
}

// What follows a delivery and is not delivered itself may be committed, whatever became of the delivery.
func TestAdvanceAndDrop(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 2)
	l.Drop(s[1])
	l.Advance(3) // behind one that is gone
	l.Settle(s[0])
	wantMark(t, l, 3, true)

	l = ledger.New[int64]()
	s = add(t, l, 1)
	l.Advance(2)
	l.Drop(s[0]) // gone afterwards
	wantMark(t, l, 2, true)
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestIdle(t *testing.T) {
	l := ledger.New[int64]()
	if !closed(l.Idle()) {
		t.Error("an empty ledger isn't idle")
	}
	s := add(t, l, 2)
	one, two := l.Idle(), l.Idle()
	l.Drop(s[1])
	if closed(one) {
		t.Error("idle with an open delivery")
	}
	l.Settle(s[0])
	if !closed(one) || !closed(two) {
		t.Error("not idle after the last")
	}
	add(t, l, 1)
	three := l.Idle()
	if closed(three) {
		t.Error("idle again with an open delivery")
	}
	l.Seal()
	if !closed(three) || !closed(l.Idle()) {
		t.Error("a sealed ledger isn't idle")
	}
}

func TestSeal(t *testing.T) {
	l := ledger.New[int64]()
	s := add(t, l, 3)
	l.Settle(s[0])
	l.Claim(s[1])
	if n := l.Seal(); n != 2 {
		t.Errorf("sealed with %d open, want 2", n)
	}
	if n := l.Seal(); n != 0 {
		t.Errorf("sealed again with %d open", n)
	}
	if _, ok := l.Add(4, 1, 4); ok || l.Settle(s[1]) || l.Settle(s[2]) {
		t.Error("a sealed ledger accepts")
	}
	l.Advance(9)
	l.Unclaim(s[1])
	wantMark(t, l, 1, true)
	wantOpen(t, l, 0, 0)
}

func TestOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger.New[int64]()
		start := time.Now()
		a := add(t, l, 1)
		<-time.After(time.Second)
		l.Add(2, 1, 2)
		if _, _, oldest := l.Open(); !oldest.Equal(start) {
			t.Errorf("oldest is %v after the first", oldest.Sub(start))
		}
		l.Settle(a[0])
		if _, _, oldest := l.Open(); oldest.Sub(start) != time.Second {
			t.Errorf("oldest is %v after the first", oldest.Sub(start))
		}
	})
}

// Concurrent settlements in any order leave nothing open and the last mark.
func TestConcurrent(t *testing.T) {
	const n = 5000
	l := ledger.New[int64]()
	s := add(t, l, n)
	rand.Shuffle(n, func(i, j int) { s[i], s[j] = s[j], s[i] })
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := k; i < n; i += 4 {
				if i%3 == 0 {
					l.Claim(s[i])
					l.Mark()
					l.Open()
				}
				if !l.Settle(s[i]) {
					t.Error("stale")
				}
			}
		})
	}
	<-l.Idle()
	wg.Wait()
	if m, _ := l.Mark(); m != n {
		t.Errorf("Mark is %d, want %d", m, n)
	}
}

func TestAllocations(t *testing.T) {
	l := ledger.New[int64]()
	var seqs [200]int64
	mark := int64(0)
	round := func() {
		for i := range seqs {
			mark++
			seqs[i], _ = l.Add(mark, 1, 0)
		}
		for i := len(seqs) - 1; i >= 0; i-- {
			_, next, _ := l.Reissue(seqs[i])
			l.Claim(next)
			l.Settle(next)
		}
		l.Mark()
		l.Open()
	}
	round() // warm: the ring has grown
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations in a round of %d deliveries", n, len(seqs))
	}
}

func BenchmarkAddSettle(b *testing.B) {
	for _, open := range []int{1, 256, 16384} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) {
			l := ledger.New[int64]()
			seqs := make([]int64, open)
			mark := int64(0)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := i % open
				if i >= open {
					l.Settle(seqs[k])
				}
				mark++
				seqs[k], _ = l.Add(mark, 100, mark)
			}
		})
	}
}
