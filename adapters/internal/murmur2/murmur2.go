// Package murmur2 chooses the partition of a key as Kafka's Java client does, so that a key has the same partition whoever sends it.
package murmur2

import "encoding/binary"

// Partition returns the partition of a key among n, which is at least 1.
func Partition(key []byte, n int) int32 { return int32((Sum(key) & 0x7fffffff) % uint32(n)) }

// Sum is the hash of that name by Austin Appleby, 32 bits, with the seed that Kafka's clients share.
func Sum(b []byte) uint32 {
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
