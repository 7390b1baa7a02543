package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
	"github.com/stagebus/stagebus/internal/envelope"
)

// lane is a partition in one generation: what was fetched of it, what was delivered, and the ledger of what was settled.
// It implements [stagebus.Lane]. The fields after "guarded" belong to the consumer's lock.
type lane struct {
	c      *consumer
	info   stagebus.LaneInfo
	source string // the topic as the user names it, also for a lane of a retry topic
	origin int32  // the partition of source
	retry  bool
	ledger *ledger.Ledger[*pinned]

	drain  chan struct{}
	ctx    context.Context
	cancel context.CancelCauseFunc

	// guarded
	pos       int64        // next offset to fetch
	reader    *batchReader // what was fetched and not delivered yet
	peeked    *pinned      // the first record of reader, not due yet
	again     []redelivery // given back by Release, or by Retry without a group
	held      int          // delivered and neither settled nor given back
	heldBytes int
	pinned    int // bytes of the live chunks
	fetching  bool
	pause     time.Time // don't fetch before
	trouble   backoff
	draining  bool
	// remnant: the lane has drained and another one goes on after it in the same partition, which this member kept. What is
	// open can still be settled, and is delivered again when it is given back.
	remnant   bool
	sealed    bool
	missing   bool  // the broker doesn't know the topic; looked at once more before it counts
	committed int64 // what the broker knows, -1 for nothing
	start     int64
	end       int64 // the end of the partition, by the last fetch
}

// pinned is what a delivery keeps until it is settled: the record as it came, for Retry and Reject.
type pinned struct {
	received
	attempt int
	origin  stagebus.Position // where it was first consumed
	size    int
	due     time.Time
}

type redelivery struct {
	seq int64
	p   *pinned
	due time.Time // zero: at once
}

// Info implements [stagebus.Lane].
func (l *lane) Info() stagebus.LaneInfo { return l.info }

// Draining implements [stagebus.Lane].
func (l *lane) Draining() <-chan struct{} { return l.drain }

// Context implements [stagebus.Lane].
func (l *lane) Context() context.Context { return l.ctx }

// next takes the next delivery that is due. It returns false, and when to look again if that is known.
func (l *lane) next(now time.Time, room func(size int) bool) (d stagebus.Delivery, ok bool, at time.Time) {
	if l.sealed || l.draining && !l.remnant {
		return d, false, at
	}
	for i, r := range l.again {
		if r.due.After(now) {
			at = earliest(at, r.due)
			continue
		}
		if !room(r.p.size) {
			return d, false, at
		}
		l.again = append(l.again[:i], l.again[i+1:]...)
		d = l.delivery(r.p, r.seq)
		d.Redelivered = true
		return d, true, at
	}
	if l.draining || l.ledger.Span() > ledger.MaxSpan { // one that is never settled holds up the mark: what comes behind it must end somewhere
		return d, false, at
	}
	p := l.peek()
	if p == nil {
		return d, false, at
	}
	if p.due.After(now) {
		return d, false, earliest(at, p.due)
	}
	if !room(p.size) {
		return d, false, at
	}
	seq, ok := l.ledger.Add(p.offset+1, p.size, p)
	if !ok {
		return d, false, at
	}
	l.peeked = nil
	l.pin(p.chunk)
	return l.delivery(p, seq), true, at
}

// peek reads the next record out of what was fetched.
func (l *lane) peek() *pinned {
	if l.peeked != nil || l.reader == nil {
		return l.peeked
	}
	rec, ok, err := l.reader.read()
	if ok {
		p := &pinned{received: rec, size: len(rec.key) + len(rec.value)}
		for _, h := range rec.headers {
			p.size += len(h.name) + len(h.value)
		}
		p.origin = stagebus.Position{Topic: l.info.Topic, Partition: l.info.Partition, Offset: rec.offset}
		if l.retry {
			l.unwrap(p)
			l.c.kickFetch() // it may have to wait, see yield
		}
		l.peeked = p
		return p
	}
	stuck := l.reader.next == l.pos && err == nil
	l.dropReader()
	l.ledger.Advance(l.pos)
	switch {
	case err != nil:
		l.failed(err)
	case stuck:
		l.failed(errors.New("the broker's answer holds no whole batch"))
	default:
		l.trouble.reset()
	}
	l.c.kickFetch()
	return nil
}

func (l *lane) setReader(r *batchReader) {
	l.reader = r
	l.pin(r.whole)
}

// pin and unpin count the memory that records keep.
func (l *lane) pin(ch *chunk) {
	if ch.refs++; ch.refs == 1 {
		l.pinned += ch.bytes
		l.c.pinned += ch.bytes
	}
}

func (l *lane) unpin(ch *chunk) {
	if ch.refs--; ch.refs == 0 {
		l.pinned -= ch.bytes
		l.c.pinned -= ch.bytes
		l.c.kickFetch()
	}
}

func (l *lane) dropReader() {
	if l.reader == nil {
		return
	}
	l.pos = max(l.pos, l.reader.next)
	if l.peeked != nil {
		l.pos = l.peeked.offset
	}
	l.unpin(l.reader.whole)
	l.reader, l.peeked = nil, nil
}

// failed makes the lane wait before its next fetch, longer each time, and says why.
func (l *lane) failed(err error) {
	l.pause = time.Now().Add(l.trouble.delay())
	l.c.note(stagebus.Event{Kind: stagebus.EventError, Topic: l.info.Topic, Partition: l.info.Partition, Group: l.info.Group,
		Err: l.c.client.fail("consume", l.info.Topic, err)})
}

func (l *lane) delivery(p *pinned, seq int64) stagebus.Delivery {
	d := stagebus.Delivery{
		Token:    stagebus.Token{Lane: l, Seq: seq},
		Position: stagebus.Position{Topic: l.info.Topic, Partition: l.info.Partition, Offset: p.offset},
		Message:  stagebus.Message{Topic: l.source, Key: p.key, Body: p.value, Time: p.time},
	}
	meta, err := envelope.DecodeKafka(&d.Message, len(p.headers), func(i int) (string, []byte) {
		return p.headers[i].name, p.headers[i].value
	})
	d.Err = err
	p.attempt = max(p.attempt, meta.Attempt, 1)
	d.Attempt = p.attempt
	l.hold(1, p.size)
	return d
}

// hold counts deliveries that are out. Sealing has counted those of its lane as back.
func (l *lane) hold(n, bytes int) {
	if l.sealed {
		return
	}
	l.held += n
	l.heldBytes += n * bytes
	l.c.held += n
	l.c.heldBytes += n * bytes
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
