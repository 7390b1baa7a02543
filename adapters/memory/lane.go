package memory

import (
	"context"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// lane is a stretch of deliveries from one log to one member, in one generation of the group.
type lane struct {
	cursor   *cursor
	consumer *consumer
	epoch    int64
	ledger   *ledger.Ledger[int64] // pins offsets: a log keeps what a reader has not settled
	next     int64                 // offset of the next message to deliver for the first time in this lane
	redo     []redo                // released, to be delivered again
	redoSize int64

	draining chan struct{}
	revoked  bool        // draining is closed
	timer    *time.Timer // seals the lane when the drain time is over
	sealed   bool
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

type redo struct{ seq, offset int64 }

// Info implements [stagebus.Lane].
func (l *lane) Info() stagebus.LaneInfo {
	p := l.cursor.partition
	return stagebus.LaneInfo{Topic: p.topic, Partition: p.id, Group: l.cursor.g.name, Epoch: l.epoch}
}

// Draining implements [stagebus.Lane].
func (l *lane) Draining() <-chan struct{} { return l.draining }

// Context implements [stagebus.Lane].
func (l *lane) Context() context.Context { return l.ctx }

// begin starts the lane of who wants c, unless another is still there.
func (c *cursor) begin() {
	if c.lane != nil || c.want == nil {
		return
	}
	l := &lane{
		cursor: c, consumer: c.want, epoch: c.g.generation, ledger: ledger.New[int64](), next: c.committed,
		draining: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	c.lane = l
	c.want.lanes = append(c.want.lanes, l)
	c.want.changed.fire()
	l.emit(stagebus.EventAssigned, l.epoch, nil)
}

// peek returns the size of the message that pop would return, or false if there is none yet; due then says when there will be.
func (l *lane) peek(now time.Time) (size int64, due time.Time, ok bool) {
	p := l.cursor.partition
	switch {
	case l.revoked:
		return 0, due, false
	case len(l.redo) > 0:
		return p.at(l.redo[0].offset).size, due, true
	case l.next == p.next:
		return 0, due, false
	}
	r := p.at(l.next)
	if r.again != nil && now.Before(r.again.due) {
		return 0, r.again.due, false
	}
	return r.size, due, true
}

// pop fills d with what peek found.
func (l *lane) pop(d *stagebus.Delivery) {
	c := l.cursor
	var r redo
	again := len(l.redo) > 0
	if again {
		r, l.redo = l.redo[0], l.redo[1:]
		l.redoSize -= c.partition.at(r.offset).size
	} else {
		r.offset = l.next
		l.next++
		again = r.offset < c.delivered
		c.delivered = max(c.delivered, l.next)
		r.seq, _ = l.ledger.Add(l.next, int(c.partition.at(r.offset).size), r.offset)
	}
	rec := c.partition.at(r.offset)
	d.Message = rec.Message
	d.Token = stagebus.Token{Lane: l, Seq: r.seq}
	d.Position = stagebus.Position{Topic: c.partition.topic, Partition: c.partition.id, Offset: r.offset}
	d.Attempt = rec.attempt()
	d.Redelivered = again
	d.Peer, d.Err = nil, nil
}

// release makes the token stale and has its message delivered again. False: it was stale.
func (l *lane) release(seq int64) bool {
	offset, next, ok := l.ledger.Reissue(seq)
	if ok {
		l.redo = append(l.redo, redo{next, offset})
		l.redoSize += l.cursor.partition.at(offset).size
	}
	return ok
}

// held is what the receiver has and has not settled.
func (l *lane) held() load {
	n, bytes, _ := l.ledger.Open() // with what was released and not delivered again
	return load{int64(n - len(l.redo)), bytes - l.redoSize}
}

// settled is to be called after settlements: it commits what they allow, and ends a lane that has drained.
func (l *lane) settled() {
	if l.sealed {
		return
	}
	l.commit()
	if l.revoked && l.held().n == 0 {
		l.seal()
	}
	l.consumer.changed.fire()
}

func (l *lane) commit() {
	if mark, moved := l.ledger.Mark(); moved {
		l.cursor.commit(mark)
	}
}

// drain revokes the lane: nothing more is delivered, and it is sealed once all is settled or the drain time is over.
func (l *lane) drain() {
	if l.revoked {
		return
	}
	l.revoked = true
	close(l.draining)
	if l.held().n == 0 {
		l.seal()
		return
	}
	l.timer = time.AfterFunc(l.consumer.o.Drain, func() {
		s := l.consumer.d.store
		s.lock()
		defer s.unlock()
		l.seal()
	})
}

// seal ends the lane, and the next one of its log begins.
func (l *lane) seal() {
	if l.sealed {
		return
	}
	l.sealed = true
	if !l.revoked {
		l.revoked = true
		close(l.draining)
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.commit()
	l.ledger.Seal()
	l.cancel(stagebus.ErrStale)
	l.cursor.lane = nil
	l.consumer.forget(l)
	l.emit(stagebus.EventRevoked, l.epoch, nil)
	l.cursor.begin()
}

func (l *lane) emit(kind stagebus.EventKind, n int64, err error) {
	i := l.Info()
	l.consumer.d.store.emit(l.consumer.d, stagebus.Event{
		Kind: kind, Topic: i.Topic, Partition: i.Partition, Group: i.Group, N: n, Err: err,
	})
}
