package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// end knows when everything that was there at the start has been delivered.
//
// A partition has ended when the message before its high watermark has come. That message may never come: transactions end with a
// marker that isn't delivered, compaction leaves holes, another member of the group has it, a start in time lies behind it. So depth
// and idle are ends as well. A queue has ended when as many messages came as were in it.
type end struct {
	log  bool          // positions have offsets
	idle time.Duration // nothing comes for so long: the end

	targets map[partition]int64 // offset of the last message of each partition that has not ended
	depth   int64               // messages that the group had not settled, all topics together; -1: not known
	there   int64               // messages in the partitions that have not ended
	n       int64               // deliveries so far
}

// expected is how many messages there are to come, or 0 if that isn't known.
func (e *end) expected(o stagebus.ConsumerOptions) int64 {
	switch {
	case e == nil:
		return 0
	case e.depth > 0:
		return e.depth
	case o.Mode == stagebus.Assigned && o.Start.Kind != stagebus.StartTime:
		return e.there
	}
	return 0
}

type partition struct {
	topic string
	id    int32
}

// look asks the broker how much there is. It must be called before the consumer opens: what is prefetched isn't in a queue any more.
func (e *end) look(ctx context.Context, admin stagebus.Admin, o stagebus.ConsumerOptions) error {
	e.targets, e.depth = map[partition]int64{}, 0
	for _, topic := range o.Topics {
		info, err := admin.Describe(ctx, topic)
		if errors.Is(err, stagebus.ErrUnsupported) || errors.Is(err, stagebus.ErrNotFound) || !e.log && errors.Is(err, stagebus.ErrAuth) {
			// The consumer says whether a topic that is missing is an error. On RabbitMQ the group's queue may be all there is, or all that one
			// may touch: newer versions want a right to look.
			e.depth = -1
			continue
		}
		if err != nil {
			return err
		}
		e.add(topic, info, o)
	}
	return nil
}

func (e *end) add(topic string, info stagebus.TopicInfo, o stagebus.ConsumerOptions) {
	for _, p := range info.Partitions {
		first := p.First
		if o.Mode == stagebus.Assigned && o.Start.Kind == stagebus.StartOffset {
			first = max(first, o.Start.Offset)
		}
		if first < p.Next {
			e.targets[partition{physical(topic), p.ID}] = p.Next - 1
			e.there += p.Next - first
		}
	}
	if e.depth < 0 {
		return
	}
	i := slices.IndexFunc(info.Groups, func(g stagebus.GroupInfo) bool { return g.Name == stagebus.GroupName(o.Group) })
	if o.Mode != stagebus.Shared || i < 0 {
		e.depth = -1
		return
	}
	e.depth += info.Groups[i].Depth
}

// physical is the name in positions.
func physical(topic string) string {
	if raw, ok := stagebus.RawTopic(topic); ok {
		return raw
	}
	return topic
}

// saw takes note of a delivery.
func (e *end) saw(d *stagebus.Delivery) {
	e.n++
	p := partition{physical(d.Position.Topic), d.Position.Partition}
	if last, ok := e.targets[p]; ok && d.Position.Offset >= last {
		delete(e.targets, p)
	}
}

// reached reports whether nothing more is expected.
func (e *end) reached() bool {
	switch {
	case e.depth > 0 && e.n >= e.depth:
		return true
	case e.log && e.depth == 0, e.log && len(e.targets) == 0:
		return true
	}
	// An empty queue may be about to get what was published without a confirm a moment ago: idle decides.
	return false
}

// missing says what was expected and didn't come, or "".
func (e *end) missing() string {
	if !e.log || e.depth >= 0 || len(e.targets) == 0 {
		return ""
	}
	var ps []string
	for p, last := range e.targets {
		ps = append(ps, fmt.Sprintf("%s/%d up to offset %d", p.topic, p.id, last))
	}
	slices.Sort(ps)
	const most = 5
	if len(ps) > most {
		ps = append(ps[:most], fmt.Sprintf("%d more", len(e.targets)-most))
	}
	return strings.Join(ps, ", ")
}
