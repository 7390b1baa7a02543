package kafka

import (
	"encoding/binary"
	"math/rand/v2"
)

// stickyBytes is how much goes to one partition before messages without a key go to another: enough for batches to form.
const stickyBytes = 16 << 10

// keyPartition is the partition of a key, the same that the Java client chooses.
func keyPartition(key []byte, n int) int32 { return int32((murmur2(key) & 0x7fffffff) % uint32(n)) }

// murmur2 is the hash of that name by Austin Appleby, 32 bits, with the seed that Kafka's clients share.
func murmur2(b []byte) uint32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	h := uint32(seed) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		k = (k ^ k>>24) * m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

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
