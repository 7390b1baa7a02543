package bench

import (
	"math/bits"
	"sync"
)

// book keeps account of one producer's messages by their numbers: which the broker confirmed, which arrived, in which order. It needs some
// bits for each message that is under way, failed or lost, and nothing for those that are done with.
type book struct {
	blind bool // nobody receives: outcomes are only counted

	mu    sync.Mutex // protects the following
	base  uint64     // the number of the first message of words, a multiple of 64
	words []word
	done  int     // so many words at the front are done with
	last  []int64 // the highest number that arrived, by key; -1 for none

	acked, failed, uncertain  int64
	arrived, doubled, swapped int64
	open                      int64 // confirmed, not arrived
}

// word is the state of 64 messages.
type word struct{ known, acked, seen uint64 }

// newBook returns a book for messages whose keys go round: message n has key n modulo keys. Without keys there is no order to check.
func newBook(keys int) *book {
	b := &book{last: make([]int64, keys)}
	for i := range b.last {
		b.last[i] = -1
	}
	return b
}

// at returns the word and the bit of a message, or nil for one that is done with. b.mu is held.
func (b *book) at(seq uint64) (*word, uint64) {
	if seq < b.base+64*uint64(b.done) {
		return nil, 0
	}
	i := (seq - b.base) / 64
	for uint64(len(b.words)) <= i {
		b.words = append(b.words, word{})
	}
	return &b.words[i], 1 << (seq % 64)
}

// outcome notes what the broker said of a message.
func (b *book) outcome(seq uint64, acked, uncertain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case acked:
		b.acked++
	case uncertain:
		b.uncertain++
	default:
		b.failed++
	}
	if b.blind {
		return
	}
	w, bit := b.at(seq)
	if w == nil {
		return
	}
	w.known |= bit
	if acked {
		w.acked |= bit
		if w.seen&bit == 0 {
			b.open++
		}
	}
	b.trim()
}

// arrive notes that a message has arrived, and returns false if it had before.
func (b *book) arrive(seq uint64) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, bit := b.at(seq)
	if w == nil || w.seen&bit != 0 {
		b.doubled++
		return false
	}
	b.arrived++
	w.seen |= bit
	if w.acked&bit != 0 {
		b.open--
	}
	if n := uint64(len(b.last)); n > 0 {
		if last := &b.last[seq%n]; int64(seq) < *last {
			b.swapped++
		} else {
			*last = int64(seq)
		}
	}
	b.trim()
	return true
}

// trim forgets the messages at the front that are done with: their outcome is known, and they arrived.
func (b *book) trim() {
	for b.done < len(b.words) && b.words[b.done].known&b.words[b.done].seen == ^uint64(0) {
		b.done++
	}
	if b.done*2 > len(b.words) { // not each time: what stays is moved
		b.base += 64 * uint64(b.done)
		b.words = append(b.words[:0], b.words[b.done:]...)
		b.done = 0
	}
}

// lost counts the messages that were confirmed and didn't arrive.
func (b *book) lost() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.words {
		n += int64(bits.OnesCount64(w.acked &^ w.seen))
	}
	return n
}

// waiting is lost while messages are under way, without a look at each.
func (b *book) waiting() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// nothing tells whether no message was confirmed, and one failed for certain.
func (b *book) nothing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acked == 0 && b.failed > 0
}
