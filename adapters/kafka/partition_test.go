package kafka

import "testing"

func TestStickyStaysForABatchThenMoves(t *testing.T) {
	var s sticky
	first := s.next(4, 100)
	for range stickyBytes/100 - 1 {
		if p := s.next(4, 100); p != first {
			t.Fatalf("moved from %d to %d before a batch was full", first, p)
		}
	}
	s.next(4, 100)
	if p := s.next(4, 100); p == first {
		t.Errorf("still at %d after a batch", p)
	}
	if p := s.next(1, 100); p != 0 {
		t.Errorf("partition %d of one", p)
	}
}
