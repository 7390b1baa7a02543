package memory

import (
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/murmur2"
)

// record is a message in a log.
type record struct {
	stagebus.Message
	size  int64
	sum   int64  // sizes of all records of the log up to and with this one
	again *again // nil for a first attempt
}

// again is what a retry knows beside its message.
type again struct {
	attempt int
	due     time.Time
	origin  stagebus.Position // where the message was at first
}

func (r *record) attempt() int {
	if r.again == nil {
		return 1
	}
	return r.again.attempt
}

// partition is one log: of a topic, or a group's for the retries of one delay.
type partition struct {
	topic   string // as positions and lanes name it
	id      int32
	ring    []record // length a power of two, or none
	first   int64    // offset of the earliest record kept
	next    int64    // offset of the next one
	sum     int64    // sizes of all records ever appended
	cursors []*cursor
	// floor is up to where all readers have settled. It stays when the last reader leaves: what was settled once isn't held
	// again for nobody. Set by settled.
	floor int64
}

func (p *partition) at(offset int64) *record { return &p.ring[offset&int64(len(p.ring)-1)] }

// push appends a record and wakes who reads here. m must share nothing with its sender, see detach.
func (p *partition) push(m stagebus.Message, a *again) (offset, size int64) {
	if p.next-p.first == int64(len(p.ring)) {
		ring := make([]record, max(64, 2*len(p.ring)))
		for i := p.first; i < p.next; i++ {
			ring[i&int64(len(ring)-1)] = *p.at(i)
		}
		p.ring = ring
	}
	offset, size = p.next, int64(m.Size())
	p.sum += size
	*p.at(offset) = record{Message: m, size: size, sum: p.sum, again: a}
	p.next++
	for _, c := range p.cursors {
		if c.lane != nil {
			c.lane.consumer.changed.fire()
		}
	}
	return offset, size
}

// drop forgets the earliest record.
func (p *partition) drop() (size int64) {
	r := p.at(p.first)
	size = r.size
	*r = record{}
	p.first++
	return size
}

// held returns how many records, and bytes, are at or after offset.
func (p *partition) held(offset int64) load {
	if offset >= p.next {
		return load{}
	}
	r := p.at(offset)
	return load{p.next - offset, p.sum - r.sum + r.size}
}

// settled brings the floor up to date and returns it.
func (p *partition) settled() int64 {
	if len(p.cursors) > 0 {
		p.floor = p.next
		for _, c := range p.cursors {
			p.floor = min(p.floor, c.committed)
		}
	}
	return p.floor
}

// search returns the offset at which a reader begins that asks for s.
func (p *partition) search(s stagebus.Start) int64 {
	switch s.Kind {
	case stagebus.StartLatest:
		return p.next
	case stagebus.StartOffset:
		return min(max(s.Offset, p.first), p.next)
	case stagebus.StartTime:
		i := p.first
		for i < p.next && p.at(i).Time.Before(s.Time) {
			i++
		}
		return i
	default:
		return p.first
	}
}

// load is a number of messages and their bytes.
type load struct{ n, bytes int64 }

func (l *load) add(m load) { l.n, l.bytes = l.n+m.n, l.bytes+m.bytes }

// topic is a number of logs that share a capacity.
type topic struct {
	s          *store
	name       string
	partitions []*partition
	groups     []*group
	capacity   int
	limit      int64 // capacity in bytes
	kept       load
	turn       int    // partition for the next message without a key
	room       signal // fired when readers settled, came or left, and when the topic is deleted
	waiting    int    // Submits that wait for room
}

// held is what counts against the capacity: what the slowest reader of each partition has not settled, and all retries.
func (t *topic) held() load {
	var l load
	for _, p := range t.partitions {
		l.add(p.held(p.settled()))
	}
	for _, g := range t.groups {
		for _, c := range g.retries {
			l.add(c.partition.held(c.committed))
		}
	}
	return l
}

// fits says whether a topic that holds l has room for more. An empty one has room for anything.
func (t *topic) fits(l, more load) bool {
	return l.n == 0 || l.n+more.n <= int64(t.capacity) && l.bytes+more.bytes <= t.limit
}

// append adds a message to one of t's partitions, which the caller knows to have room. The floors must be up to date (see held).
func (t *topic) append(p *partition, m stagebus.Message) stagebus.Position {
	offset, size := p.push(m, nil)
	t.kept.add(load{1, size})
	for t.kept.n > int64(t.capacity) || t.kept.bytes > t.limit {
		most := t.partitions[0]
		for _, p := range t.partitions[1:] {
			if p.floor-p.first > most.floor-most.first {
				most = p
			}
		}
		if most.floor == most.first {
			break
		}
		t.kept.add(load{-1, -most.drop()})
	}
	return stagebus.Position{Topic: t.name, Partition: p.id, Offset: offset}
}

// choose returns the partition for m, or nil for a pinned one that doesn't exist.
func (t *topic) choose(m *stagebus.Message) *partition {
	n, pinned := m.Partition.Pinned()
	switch {
	case pinned && int(n) >= len(t.partitions):
		return nil
	case pinned:
	case m.Key != nil:
		n = murmur2.Partition(m.Key, len(t.partitions))
	default:
		n = int32(t.turn)
		t.turn = (t.turn + 1) % len(t.partitions)
	}
	return t.partitions[n]
}

// detach returns a copy of m for a log: nothing that its sender may write to is shared, and nothing has spare capacity that two
// receivers could append into. The pin is of the sender's interest only; a receiver finds it in Position.
func detach(m *stagebus.Message, now time.Time) stagebus.Message {
	c := *m
	c.Partition = 0
	c.Key, c.Body = clone(m.Key), clone(m.Body)
	c.Headers = clone(m.Headers)
	if c.Time.IsZero() {
		c.Time = now
	}
	return c
}

func clone[S ~[]E, E any](s S) S {
	if s == nil {
		return nil
	}
	c := make(S, len(s))
	copy(c, s)
	return c
}
