package kafka

import (
	"errors"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// perBroker is how many fetches may wait at one broker. A partition that becomes free again needn't wait for the others'
// long poll, and the number of connections stays small.
const perBroker = 3

// fetchLoop plans fetches whenever something has changed, until the consumer ends.
func (c *consumer) fetchLoop() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.kicks:
		}
		for node, ls := range c.plan() {
			c.wg.Go(func() { c.fetch(node, ls) })
		}
	}
}

// wantedPart is a lane with where to fetch, as it was when planned.
type wantedPart struct {
	l    *lane
	part fetchPart
}

// plan chooses the lanes that have room, by the broker that leads them.
func (c *consumer) plan() map[int32][]wantedPart {
	c.mu.Lock()
	defer c.unlock()
	plan := map[int32][]wantedPart{}
	now := time.Now()
	var look time.Time
	first := c.asked
	for i := range c.lanes {
		l := c.lanes[(first+i)%len(c.lanes)]
		if l.fetching || l.draining || l.sealed || l.missing || l.reader != nil {
			continue
		}
		if l.pause.After(now) {
			look = earliest(look, l.pause)
			continue
		}
		node, ok := c.d.leader(l.info.Topic, l.info.Partition)
		if !ok {
			l.pause = now.Add(l.trouble.delay())
			look = earliest(look, l.pause)
			c.rescan()
			continue
		}
		if c.fetches[node] >= perBroker {
			continue // its return kicks again
		}
		bytes := c.n.FetchBytes
		if c.full(bytes) {
			if look = c.yield(now, look); c.full(bytes) {
				continue // a settlement kicks again
			}
		}
		c.asked = (first + i + 1) % len(c.lanes) // the next plan goes on behind it, or idle lanes would take all the room each time
		c.wanted += bytes
		l.fetching = true
		plan[node] = append(plan[node], wantedPart{l, fetchPart{place{l.info.Topic, l.info.Partition}, l.pos, bytes}})
	}
	for node := range plan {
		c.fetches[node]++
	}
	if !look.IsZero() {
		c.lookAt(look)
	}
	return plan
}

// full says that so much more would be over the budget.
func (c *consumer) full(bytes int) bool {
	return c.pinned+c.wanted+bytes > c.o.PrefetchBytes && c.pinned+c.wanted > 0
}

// yield drops what waits to be due: it can be fetched again in its time, and until then others need the memory. It returns
// when to look again.
func (c *consumer) yield(now, look time.Time) time.Time {
	for _, l := range c.lanes {
		if l.peeked != nil && l.peeked.due.After(now) {
			l.pause = l.peeked.due
			look = earliest(look, l.pause)
			l.dropReader()
		}
	}
	return look
}

// fetch carries out one fetch and gives its lanes what it brought.
func (c *consumer) fetch(node int32, ws []wantedPart) {
	parts := make([]fetchPart, len(ws))
	for i := range ws {
		parts[i] = ws[i].part
	}
	rs, err := c.source.fetch(c.ctx, node, c.n.MaxWait, parts)
	got := make(map[place]*fetchResult, len(rs))
	for i := range rs {
		got[rs[i].place] = &rs[i]
	}
	c.mu.Lock()
	defer c.unlock()
	c.fetches[node]--
	if err != nil && c.ctx.Err() == nil {
		c.note(stagebus.Event{Kind: stagebus.EventDisconnected, Group: c.group, Err: c.client.fail("consume", "", err)})
		c.rescan()
	}
	for _, w := range ws {
		l := w.l
		l.fetching = false
		c.wanted -= w.part.bytes
		if l.sealed || l.draining || l.pos != w.part.offset {
			continue
		}
		r := got[w.part.place]
		switch {
		case err != nil:
			l.pause = time.Now().Add(l.trouble.delay())
		case r == nil:
			l.failed(errors.New("the broker's answer doesn't name the partition"))
		case r.err != 0:
			c.refused(l, r.err)
		default:
			l.end = r.end
			if len(r.records) > 0 {
				l.setReader(newBatchReader(r.records, l.pos, c.limit, r.aborted))
			} else {
				l.trouble.reset()
			}
		}
		if l.pause.After(time.Now()) {
			c.lookAt(l.pause)
		}
	}
	c.wake()
	c.kickFetch()
}

// refused deals with a broker's error for one partition.
func (c *consumer) refused(l *lane, code kgo.Error) {
	switch code {
	case kgo.OffsetOutOfRange:
		l.failed(code)
		l.pause = time.Now().Add(time.Hour) // until reset has found another place
		c.wg.Go(func() { c.reset(l) })
		return
	case kgo.UnknownTopicOrPartition, kgo.UnknownTopicID, kgo.NotLeaderForPartition, kgo.LeaderNotAvailable, kgo.FencedLeaderEpoch,
		kgo.UnknownLeaderEpoch, kgo.ReplicaNotAvailable, kgo.KafkaStorageError, kgo.OffsetNotAvailable:
		l.pause = time.Now().Add(l.trouble.delay()) // what happens when leaders move: look where it is now
		c.rescan()
	default:
		l.failed(code)
	}
}

// reset finds where to go on in a partition that no longer has the offset wanted: its beginning.
func (c *consumer) reset(l *lane) {
	at := place{l.info.Topic, l.info.Partition}
	b := backoff{min: 100 * time.Millisecond, max: 5 * time.Second}
	for {
		first, err := c.d.offsets(c.ctx, []place{at}, offsetEarliest)
		if err == nil {
			c.mu.Lock()
			start := first[at]
			if l.sealed || l.draining {
				c.unlock()
				return
			}
			if start >= l.pos {
				l.pos, l.pause = start, time.Time{}
				l.ledger.Advance(start)
				c.kickFetch()
				c.unlock()
				return
			}
			c.unlock()
			// The log ends before what was read: it is another one. Marks of the old must not reach its group.
			c.replace(l, start)
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		if b.wait(c.ctx) != nil {
			return
		}
	}
}

// replace ends a lane and begins one at another offset in its place.
func (c *consumer) replace(l *lane, start int64) {
	c.sealLanes([]*lane{l}, kgo.OffsetOutOfRange)
	n := c.newLane(place{l.info.Topic, l.info.Partition}, l.source, l.origin, l.retry, l.info.Epoch, start, -1)
	c.addLanes([]*lane{n})
}
