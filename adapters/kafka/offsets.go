package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"

	"github.com/stagebus/stagebus"
)

// Times that mean a place.
const (
	offsetLatest   = -1
	offsetEarliest = -2
)

// offsets asks the leaders for the offset of each partition at a time in milliseconds, or one of the constants. The
// offset at a time after the last message is that of the end. It tries again what may work in a moment, until ctx ends.
func (d *directory) offsets(ctx context.Context, at []place, ms int64) (map[place]int64, error) {
	found := make(map[place]int64, len(at))
	b := backoff{min: 20 * time.Millisecond, max: 500 * time.Millisecond}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.c.timeout)
		defer cancel()
	}
	for {
		missing, err := d.offsetsOnce(ctx, at, ms, found)
		if len(missing) == 0 {
			break
		}
		var code kgo.Error
		if errors.As(err, &code) && !groupRetriable(code) && classifyProduce(code, -1, -1) != retriable || isSASL(err) {
			return nil, err
		}
		if e := b.wait(ctx); e != nil {
			return nil, errors.Join(err, e)
		}
		topics := map[string]bool{}
		for _, p := range missing {
			topics[p.topic] = true
		}
		names := make([]string, 0, len(topics))
		for t := range topics {
			names = append(names, t)
		}
		m, e := d.refresh(ctx, names...)
		if e != nil {
			continue
		}
		for _, t := range names {
			if m[t] != nil && m[t].missing() {
				return nil, fmt.Errorf("topic %q: %w", t, m[t].err)
			}
		}
		at = missing
	}
	var none []place
	for p, o := range found {
		if o < 0 {
			none = append(none, p)
		}
	}
	if len(none) > 0 && ms >= 0 {
		ends, err := d.offsets(ctx, none, offsetLatest)
		if err != nil {
			return nil, err
		}
		for p, o := range ends {
			found[p] = o
		}
	}
	return found, nil
}

// offsetsOnce fills found and returns what it doesn't, with the last reason.
func (d *directory) offsetsOnce(ctx context.Context, at []place, ms int64, found map[place]int64) (missing []place, last error) {
	byNode := map[int32][]place{}
	for _, p := range at {
		node, ok := d.leader(p.topic, p.partition)
		if !ok {
			missing, last = append(missing, p), kgo.LeaderNotAvailable
			continue
		}
		byNode[node] = append(byNode[node], p)
	}
	for node, ps := range byNode {
		req := &listoffsets.Request{ReplicaID: -1, IsolationLevel: 1}
		index := map[string]int{}
		for _, p := range ps {
			i, ok := index[p.topic]
			if !ok {
				i = len(req.Topics)
				index[p.topic] = i
				req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: p.topic})
			}
			req.Topics[i].Partitions = append(req.Topics[i].Partitions,
				listoffsets.RequestPartition{Partition: p.partition, CurrentLeaderEpoch: -1, Timestamp: ms})
		}
		m, err := d.c.ask(ctx, node, req)
		if err != nil {
			missing, last = append(missing, ps...), err
			continue
		}
		answered := map[place]bool{}
		for _, t := range m.(*listoffsets.Response).Topics {
			for _, p := range t.Partitions {
				at := place{t.Topic, p.Partition}
				if code := kgo.Error(p.ErrorCode); code != 0 {
					last = code
					continue
				}
				found[at], answered[at] = p.Offset, true
			}
		}
		for _, p := range ps {
			if !answered[p] {
				missing = append(missing, p)
			}
		}
	}
	if last == nil && len(missing) > 0 {
		last = errors.New("the broker's answer leaves out a partition")
	}
	return missing, last
}

// resolve finds where a consumer begins in partitions that have no committed offset.
func (d *directory) resolve(ctx context.Context, s stagebus.Start, at []place) (map[place]int64, error) {
	if len(at) == 0 {
		return nil, nil
	}
	switch s.Kind {
	case stagebus.StartLatest:
		return d.offsets(ctx, at, offsetLatest)
	case stagebus.StartTime:
		return d.offsets(ctx, at, max(0, s.Time.UnixMilli()))
	case stagebus.StartOffset:
		first, err := d.offsets(ctx, at, offsetEarliest)
		if err != nil {
			return nil, err
		}
		next, err := d.offsets(ctx, at, offsetLatest)
		for _, p := range at {
			first[p] = min(max(s.Offset, first[p]), next[p]) // what is gone, or not there yet, can't be asked for
		}
		return first, err
	}
	return d.offsets(ctx, at, offsetEarliest)
}
