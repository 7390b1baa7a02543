package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// prefixSize is what every body begins with: the phase that it belongs to, its producer, its number there, and when it was to be
// sent. It travels in the body, since that every broker brings back as it was.
const prefixSize = 8 + 4 + 8 + 8

// stamp is what a prefix says. due counts from the start of the phase.
type stamp struct {
	phase    uint64
	producer uint32
	seq      uint64
	due      time.Duration
}

func (s stamp) put(b []byte) {
	binary.BigEndian.PutUint64(b, s.phase)
	binary.BigEndian.PutUint32(b[8:], s.producer)
	binary.BigEndian.PutUint64(b[12:], s.seq)
	binary.BigEndian.PutUint64(b[20:], uint64(s.due))
}

// readStamp returns false for what no phase has sent.
func readStamp(b []byte) (s stamp, ok bool) {
	if len(b) < prefixSize {
		return s, false
	}
	return stamp{
		phase:    binary.BigEndian.Uint64(b),
		producer: binary.BigEndian.Uint32(b[8:]),
		seq:      binary.BigEndian.Uint64(b[12:]),
		due:      time.Duration(binary.BigEndian.Uint64(b[20:])),
	}, true
}

// newBody returns a body that no compression makes smaller.
func newBody(size int) []byte {
	b := make([]byte, size)
	var word [8]byte
	for i := 0; i < size; i += len(word) {
		binary.LittleEndian.PutUint64(word[:], rand.Uint64())
		copy(b[i:], word[:])
	}
	return b
}
