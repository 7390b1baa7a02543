package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// solo owns the lanes of a consumer without a group: those it was given, or all there are.
type solo struct {
	c     *consumer
	epoch int64
	have  map[place]bool
}

// places lists the partitions to read that have no lane yet.
func (s *solo) places() ([]opening, error) {
	c := s.c
	var os []opening
	for topic, name := range c.names {
		t := c.d.known(topic)
		if t == nil || t.err != 0 {
			continue
		}
		for _, p := range c.o.Partitions {
			if p < 0 || int(p) >= len(t.leaders) {
				return nil, &stagebus.Error{Op: "consume", Broker: c.client.url, Topic: name, Kind: stagebus.ErrNotFound,
					Cause: kgo.InvalidPartitionNumber, Do: "the topic has fewer partitions: ask for existing ones, or for all"}
			}
		}
		for p := range int32(len(t.leaders)) {
			at := place{topic, p}
			if !s.have[at] && (len(c.o.Partitions) == 0 || slices.Contains(c.o.Partitions, p)) {
				os = append(os, opening{at, name, p, false})
			}
		}
	}
	return os, nil
}

// open begins lanes for what is new.
func (s *solo) open(ctx context.Context, start stagebus.Start) error {
	os, err := s.places()
	if err != nil || len(os) == 0 {
		return err
	}
	at := make([]place, len(os))
	for i := range os {
		at[i] = os[i].place
	}
	offsets, err := s.c.d.resolve(ctx, start, at)
	if err != nil {
		return err
	}
	s.epoch++
	var lanes []*lane
	for _, o := range os {
		s.have[o.place] = true
		lanes = append(lanes, s.c.newLane(o.place, o.source, o.origin, false, s.epoch, offsets[o.place], -1))
	}
	s.c.addLanes(lanes)
	return nil
}

// run keeps the lanes until Close.
func (s *solo) run() {
	c := s.c
	defer close(c.done)
	look := time.NewTicker(c.n.MetadataInterval)
	defer look.Stop()
	ctx, cancel := c.untilClosing()
	defer cancel()
	for {
		select {
		case <-c.closing:
			s.end()
			return
		case reply := <-c.flushes:
			reply <- nil // nobody keeps the offsets
			continue
		case <-look.C:
		case <-c.rescans:
			_ = sleep(ctx, 50*time.Millisecond)
		}
		if err := s.look(ctx); err != nil && !errors.Is(err, context.Canceled) {
			c.event(err)
		}
	}
}

// look begins lanes for partitions that were added and for topics that came back: all that is in those is new.
func (s *solo) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.client.timeout)
	defer cancel()
	if _, err := s.c.watch(ctx); err != nil {
		return err
	}
	alive := map[place]bool{}
	for _, l := range s.c.current() {
		alive[place{l.info.Topic, l.info.Partition}] = true
	}
	for at := range s.have {
		if !alive[at] {
			delete(s.have, at)
		}
	}
	return s.open(ctx, stagebus.Start{Kind: stagebus.StartEarliest})
}

func (s *solo) end() {
	c := s.c
	ls := c.current()
	c.drainLanes(ls)
	t := time.NewTimer(c.o.Drain)
	defer t.Stop()
	for {
		c.mu.Lock()
		held, changed := c.held, c.changed
		c.mu.Unlock()
		if held == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case reply := <-c.flushes:
			reply <- nil
			continue
		case <-t.C:
		case <-c.hurry:
		}
		break
	}
	c.sealLanes(ls, stagebus.ErrClosed)
}
