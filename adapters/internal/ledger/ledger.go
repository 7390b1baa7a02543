// Package ledger turns settlements in any order into the prefix that is safe to commit: an offset on Kafka, ack(multiple) on
// RabbitMQ. It also pins what was received until it is settled, so that a retry or a dead letter is made from the bytes as they
// came, and counts what is pinned.
//
// The algorithm is the contiguous watermark known from Confluent's parallel consumer and Benthos' checkpoint: a ring of entries in
// order of delivery, popped from the head while they are settled. All operations are O(1), amortised.
package ledger

import (
	"sync"
	"time"
)

// Ledger is the record of one lane. T is what it pins for each delivery. All methods are safe for concurrent use.
type Ledger[T any] struct {
	mu     sync.Mutex
	ring   []entry[T] // length a power of two
	head   int64      // index of the oldest entry that is not popped
	tail   int64      // index of the next entry
	mark   int64      // highest mark of a Settled entry popped
	moved  bool       // mark was not taken since it moved
	n      int        // open entries
	bytes  int64      // of open entries
	sealed bool
	idle   chan struct{} // closed when n falls to zero, nil if nobody waits
}

type entry[T any] struct {
	value T
	mark  int64
	bytes int
	since time.Time
	gen   uint16 // part of the sequence number: Reissue makes older tokens of the entry stale
	state state
}

type state uint8

const (
	open state = iota
	claimed
	settled // its mark may be committed
	gone    // settled on its own on the broker: its mark must not be named, those after it may
)

const genBits = 16

// New returns an empty ledger.
func New[T any]() *Ledger[T] { return &Ledger[T]{ring: make([]entry[T], 64)} }

// Add records a delivery and returns its sequence number for the token. mark is what may be committed once this and all before it
// are settled: offset+1, or the delivery tag. Marks must rise. bytes is what the delivery pins. Adding to a sealed ledger returns false.
func (l *Ledger[T]) Add(mark int64, bytes int, v T) (seq int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return 0, false
	}
	seq = l.tail << genBits
	l.push(entry[T]{value: v, mark: mark, bytes: bytes, since: time.Now()})
	l.n++
	l.bytes += int64(bytes)
	return seq, true
}

// Advance moves the mark past what is not delivered at all (control batches, holes of compaction, filtered records), as soon as all
// entries before are settled.
func (l *Ledger[T]) Advance(mark int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return
	}
	if l.head == l.tail {
		l.take(mark)
		return
	}
	if last := l.at(l.tail - 1); last.state == settled {
		last.mark = max(last.mark, mark)
		return
	}
	// An entry of its own: added to a delivery's mark, it would be lost when that is dropped.
	l.push(entry[T]{mark: mark, state: settled})
}

// Claim takes an open delivery for a settlement that needs time: nobody else can settle it until Settle, Drop or Unclaim.
// It returns the pinned value, or false for a stale token.
func (l *Ledger[T]) Claim(seq int64) (v T, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(seq)
	if e == nil || e.state != open {
		return v, false
	}
	e.state = claimed
	return e.value, true
}

// Unclaim makes a claimed delivery open again: its settlement failed.
func (l *Ledger[T]) Unclaim(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(seq); e != nil && e.state == claimed {
		e.state = open
	}
}

// Settle ends an open or claimed delivery: its mark may be committed. False: the token is stale.
func (l *Ledger[T]) Settle(seq int64) bool { return l.end(seq, settled) }

// Drop ends an open or claimed delivery that was settled on its own (nacked): its mark must never be named again, and doesn't hold
// up those after it. False: the token is stale.
func (l *Ledger[T]) Drop(seq int64) bool { return l.end(seq, gone) }

// Reissue makes the token of an open delivery stale and returns the pinned value with a new sequence number, for a redelivery within
// the lane. The entry keeps its place: it still holds up the mark.
func (l *Ledger[T]) Reissue(seq int64) (v T, next int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(seq)
	if e == nil || e.state != open {
		return v, 0, false
	}
	e.gen++
	return e.value, seq>>genBits<<genBits | int64(e.gen), true
}

// Mark returns the highest mark that is safe to commit, and whether it has moved since the last call.
func (l *Ledger[T]) Mark() (mark int64, moved bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved, l.moved = l.moved, false
	return l.mark, moved
}

// Open returns how many deliveries are open, how many bytes they pin, and since when the oldest has been (zero if none).
func (l *Ledger[T]) Open() (n int, bytes int64, oldest time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head < l.tail {
		oldest = l.at(l.head).since
	}
	return l.n, l.bytes, oldest
}

// Span returns how many deliveries the ledger remembers: the oldest open one and all after it, settled or not. One that is never settled lets
// it grow with everything behind it; whoever delivers must stop at a bound, such as [MaxSpan].
func (l *Ledger[T]) Span() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.tail - l.head)
}

// MaxSpan is a bound for Span: some 6 MB of memory, and as many duplicates at worst when the lane ends.
const MaxSpan = 1 << 16

// Idle returns a channel that is closed once no delivery is open, or the ledger is sealed.
func (l *Ledger[T]) Idle() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == nil {
		l.idle = make(chan struct{})
		if l.n == 0 || l.sealed {
			close(l.idle)
			ch := l.idle
			l.idle = nil
			return ch
		}
	}
	return l.idle
}

// Seal ends the ledger: every token is stale from now on. The mark can still be read. It returns how many were open.
func (l *Ledger[T]) Seal() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return 0
	}
	l.sealed = true
	n := l.n
	l.ring, l.n, l.bytes = nil, 0, 0
	l.head = l.tail
	l.wake()
	return n
}

func (l *Ledger[T]) at(i int64) *entry[T] { return &l.ring[i&int64(len(l.ring)-1)] }

func (l *Ledger[T]) push(e entry[T]) {
	if l.tail-l.head == int64(len(l.ring)) {
		l.grow()
	}
	*l.at(l.tail) = e
	l.tail++
}

func (l *Ledger[T]) find(seq int64) *entry[T] {
	i := seq >> genBits
	if l.sealed || i < l.head || i >= l.tail {
		return nil
	}
	if e := l.at(i); int64(e.gen) == seq&(1<<genBits-1) {
		return e
	}
	return nil
}

func (l *Ledger[T]) end(seq int64, to state) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(seq)
	if e == nil || e.state > claimed {
		return false
	}
	e.state = to
	l.n--
	l.bytes -= int64(e.bytes)
	var zero T
	e.value = zero // unpin
	for l.head < l.tail {
		h := l.at(l.head)
		if h.state < settled {
			break
		}
		if h.state == settled {
			l.take(h.mark)
		}
		l.head++
	}
	if l.n == 0 {
		l.wake()
	}
	return true
}

func (l *Ledger[T]) take(mark int64) {
	if mark > l.mark {
		l.mark, l.moved = mark, true
	}
}

func (l *Ledger[T]) wake() {
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

func (l *Ledger[T]) grow() {
	ring := make([]entry[T], 2*len(l.ring))
	for i := l.head; i < l.tail; i++ {
		ring[i&int64(len(ring)-1)] = *l.at(i)
	}
	l.ring = ring
}
