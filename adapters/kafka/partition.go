package kafka

import "math/rand/v2"

// stickyBytes is how much goes to one partition before messages without a key go to another: enough for batches to form.
const stickyBytes = 16 << 10

// sticky chooses partitions for messages without a key.
type sticky struct {
	partition int32
	left      int
}

func (s *sticky) next(n, bytes int) int32 {
	if s.left <= 0 || int(s.partition) >= n {
		old := s.partition
		s.partition = rand.Int32N(int32(n))
		if s.partition == old && n > 1 {
			s.partition = (old + 1) % int32(n)
		}
		s.left = stickyBytes
	}
	s.left -= bytes
	return s.partition
}
