package kafka

import (
	"context"
	"errors"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// sender carries batches to one partition and deals with the answers.
type sender struct {
	p       *producer
	at      place
	missing time.Time // since when the topic has been unknown, zero if it isn't
}

// send returns when all items have their outcome. batch holds them all, or is nil.
func (s *sender) send(items []*item, batch []byte) {
	for _, it := range items {
		defer it.call.out()
	}
	s.deliver(items, batch)
}

func (s *sender) deliver(items []*item, batch []byte) {
	b := backoff{min: 10 * time.Millisecond, max: 500 * time.Millisecond}
	for {
		ready := s.leaving(items)
		if len(ready) == 0 {
			return
		}
		if len(ready) < len(items) || batch == nil {
			var w batchWriter
			n := s.p.fill(&w, ready)
			if n < len(ready) { // can't be, they fitted before; but a lost message would be worse than a second batch
				s.undo(ready[n:])
				defer s.deliver(ready[n:], nil)
				ready = ready[:n]
			}
			batch = w.b
		}
		items = ready
		ctx, cancel := s.context(items)
		base, a, err := s.p.out.append(ctx, s.at.topic, s.at.partition, batch)
		cancel()
		if err == nil {
			s.missing = time.Time{}
			s.settle(items, base, nil)
			return
		}
		switch a {
		case oneOfMany:
			if len(items) > 1 {
				s.undo(items)
				s.deliver(items[:len(items)/2], nil)
				s.deliver(items[len(items)/2:], nil)
				return
			}
			s.settle(items, -1, s.p.c.fail("send", s.at.topic, err))
			return
		case uncertain:
			s.settle(items, -1, &stagebus.Error{Op: "send", Broker: s.p.c.url, Topic: s.at.topic, Kind: stagebus.ErrUncertain, Cause: err,
				Do: "send it again with the same ID if a duplicate is better than a loss"})
			return
		case final:
			s.settle(items, -1, s.p.c.fail("send", s.at.topic, err))
			return
		}
		if s.gone(err) {
			s.settle(items, -1, s.p.noRoute(s.at.topic, err))
			return
		}
		s.undo(items)
		if s.p.ctx.Err() != nil {
			s.settle(items, -1, stagebus.ErrClosed)
			return
		}
		s.p.c.emit(stagebus.Event{Kind: stagebus.EventError, Topic: s.at.topic, Partition: s.at.partition, Err: err})
		_ = b.wait(s.p.ctx) // the messages' own contexts end them in the meantime
	}
}

// gone says that the topic has been unknown for too long to be a new one.
func (s *sender) gone(err error) bool {
	if !errors.Is(err, kgo.UnknownTopicOrPartition) && !errors.Is(err, kgo.UnknownTopicID) {
		s.missing = time.Time{}
		return false
	}
	if s.missing.IsZero() {
		s.missing = time.Now()
	}
	return time.Since(s.missing) > missingFor
}

func (s *sender) leaving(items []*item) []*item {
	for i, it := range items {
		if it.call.leave(it.i) {
			continue
		}
		rest := append([]*item(nil), items[:i]...)
		for _, it := range items[i+1:] {
			if it.call.leave(it.i) {
				rest = append(rest, it)
			}
		}
		return rest
	}
	return items
}

func (s *sender) undo(items []*item) {
	for _, it := range items {
		it.call.back(it.i)
	}
}

func (s *sender) settle(items []*item, base int64, err error) {
	for k, it := range items {
		o := stagebus.Outcome{Position: stagebus.Position{Topic: s.at.topic, Partition: s.at.partition, Offset: -1}, Err: err}
		if err == nil && base >= 0 {
			o.Position.Offset = base + int64(k)
		}
		it.call.result(it.i, o)
	}
}

// context lasts as long as the most patient of the messages, since their request is one.
func (s *sender) context(items []*item) (context.Context, context.CancelFunc) {
	var latest time.Time
	for _, it := range items {
		if it.call.deadline.After(latest) {
			latest = it.call.deadline
		}
	}
	if limit := time.Now().Add(s.p.c.timeout); latest.IsZero() || latest.After(limit) {
		latest = limit
	}
	return context.WithDeadline(s.p.ctx, latest)
}
