package kafka

import "testing"

// The expected values are those of the Java client's own test, Utils.murmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) is %d, want %d", key, got, want)
		}
	}
}

func TestKeyPartition(t *testing.T) {
	// -973932308: the sign must go, as in Java's toPositive.
	if got, want := keyPartition([]byte("21"), 1000), int32((-973932308&0x7fffffff)%1000); got != want {
		t.Errorf("partition %d, want %d", got, want)
	}
	for n := 1; n < 50; n++ {
		if p := keyPartition([]byte{byte(n)}, n); p < 0 || int(p) >= n {
			t.Fatalf("partition %d of %d", p, n)
		}
	}
}

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
