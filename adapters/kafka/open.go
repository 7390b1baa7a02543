package kafka

import (
	"context"
	"time"

	"github.com/stagebus/stagebus"
)

// opening is a lane to be: where, and whose messages it carries.
type opening struct {
	place
	source string
	origin int32
	retry  bool
}

// remnants are the newest lane of each partition that was kept.
func (c *consumer) remnants() map[place]*lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[place]*lane{}
	for _, l := range c.lanes {
		if l.remnant {
			found[place{l.info.Topic, l.info.Partition}] = l
		}
	}
	return found
}

// places are the openings of an assignment.
func (m *member) places(owned map[string][]int32) []opening {
	var os []opening
	for topic, ps := range owned {
		name, ok := m.c.names[topic]
		if !ok {
			continue // the leader is wrong: we never asked for it
		}
		for _, p := range ps {
			os = append(os, opening{place{topic, p}, name, p, false})
		}
	}
	return os
}

// open positions lanes at the group's offsets. Where there is none it is made and committed at once, or what is sent until
// the first settlement would be lost to a group that begins at the end and restarts.
func (m *member) open(ctx context.Context, os []opening) ([]*lane, error) {
	if len(os) == 0 {
		return nil, nil
	}
	at := make([]place, len(os))
	for i := range os {
		at[i] = os[i].place
	}
	kept := m.c.remnants()
	var committed map[place]int64
	err := retry(ctx, func() (err error) {
		committed, err = m.k.committed(ctx, at)
		return err
	})
	if err != nil {
		return nil, err
	}
	var fresh, retries []place
	for i := range os {
		if _, ok := committed[at[i]]; ok || kept[at[i]] != nil {
			continue
		}
		// What is in a retry topic was put there for this group, and a topic that came back has only what is new.
		if os[i].retry || m.c.cameBack(os[i].topic) {
			retries = append(retries, at[i])
		} else {
			fresh = append(fresh, at[i])
		}
	}
	starts := map[place]int64{}
	for _, part := range []struct {
		start stagebus.Start
		at    []place
	}{{m.c.o.Start, fresh}, {stagebus.Start{Kind: stagebus.StartEarliest}, retries}} {
		found, err := m.c.d.resolve(ctx, part.start, part.at)
		if err != nil {
			return nil, err
		}
		for p, o := range found {
			starts[p] = o
		}
	}
	if err := retry(ctx, func() error { return m.k.commit(ctx, m.who, starts) }); err != nil {
		return nil, err
	}
	lanes := make([]*lane, len(os))
	for i, o := range os {
		start, ok := committed[o.place]
		if !ok {
			start = starts[o.place]
		}
		known := start
		if l := kept[o.place]; l != nil {
			start, known = l.pos, l.committed
		}
		lanes[i] = m.c.newLane(o.place, o.source, o.origin, o.retry, int64(m.who.generation), start, known)
	}
	return lanes, nil
}

// openRetries finds the retry topics that exist for what the member owns and makes lanes for those partitions of them that have
// none yet. Who owns partition p of a topic owns p of its retry topics: that needs no second division.
func (m *member) openRetries(ctx context.Context) ([]*lane, error) {
	c := m.c
	var names []string
	for topic := range m.owned {
		if name, ok := c.names[topic]; ok {
			names = append(names, topic)
			names = append(names, retryTopics(name, c.group)...)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	found, err := c.d.refresh(ctx, names...)
	if err != nil {
		return nil, err
	}
	have := map[place]bool{}
	c.mu.Lock()
	for _, l := range c.lanes {
		have[place{l.info.Topic, l.info.Partition}] = !l.draining
	}
	c.mu.Unlock()
	var os []opening
	for topic, ps := range m.owned {
		name, ok := c.names[topic]
		if !ok || found[topic] == nil || len(found[topic].leaders) == 0 {
			continue
		}
		total := int32(len(found[topic].leaders))
		for _, rt := range retryTopics(name, c.group) {
			if found[rt] == nil || found[rt].err != 0 {
				continue
			}
			for _, p := range ps {
				// usually just p, but a topic made anew may have fewer partitions than its old retry topics
				for r := p; r < int32(len(found[rt].leaders)); r += total {
					if at := (place{rt, r}); !have[at] {
						os = append(os, opening{at, name, p, true})
					}
				}
			}
		}
	}
	return m.open(ctx, os)
}

// look compares the lanes with the cluster: topics that vanished or came back, new retry topics, partitions that were added.
// True: the group should divide anew.
func (m *member) look(ctx context.Context) bool {
	c := m.c
	ctx, cancel := context.WithTimeout(ctx, c.client.timeout)
	defer cancel()
	changed, err := c.watch(ctx)
	if err != nil {
		c.event(err)
		return false
	}
	if m.lead {
		for topic, n := range m.counted {
			if t := c.d.known(topic); t != nil && t.err == 0 && len(t.leaders) != n {
				changed = true
			}
		}
	}
	if changed {
		return true
	}
	lanes, err := m.openRetries(ctx)
	if err != nil {
		c.event(err)
		return false
	}
	c.addLanes(lanes)
	return false
}

// watch looks at the topics. One that is unknown twice in a row has vanished: its lanes end, for their offsets mean nothing any
// more. True: one has come back.
func (c *consumer) watch(ctx context.Context) (back bool, err error) {
	names := map[string]bool{}
	for t := range c.names {
		names[t] = true
	}
	for _, l := range c.current() {
		names[l.info.Topic] = true
	}
	list := make([]string, 0, len(names))
	for t := range names {
		list = append(list, t)
	}
	found, err := c.d.refresh(ctx, list...)
	if err != nil {
		return false, err
	}
	var gone []*lane
	c.mu.Lock()
	for t := range names {
		f := found[t]
		_, ours := c.names[t]
		switch {
		case f == nil:
		case f.missing():
			c.unknown[t]++
			if c.unknown[t] == 2 && ours {
				c.note(stagebus.Event{Kind: stagebus.EventMissing, Topic: t, Group: c.group, Err: c.client.fail("consume", t, f.err)})
			}
			if c.unknown[t] == 1 {
				time.AfterFunc(500*time.Millisecond, c.rescan)
			}
		case f.err == 0:
			if c.unknown[t] >= 2 && ours {
				back = true
				c.returned[t] = true
			}
			delete(c.unknown, t)
		}
	}
	for _, l := range c.lanes {
		l.missing = c.unknown[l.info.Topic] > 0
		if c.unknown[l.info.Topic] >= 2 {
			gone = append(gone, l)
		} else if l.end > 0 {
			mark, _ := l.ledger.Mark()
			c.note(stagebus.Event{Kind: stagebus.EventLag, Topic: l.info.Topic, Partition: l.info.Partition, Group: c.group, N: max(0, l.end-max(mark, l.start))})
		}
	}
	c.unlock()
	c.sealLanes(gone, stagebus.ErrNotFound)
	c.kickFetch()
	return back, nil
}

// cameBack says that the topic was deleted and made anew while this consumer watched.
func (c *consumer) cameBack(topic string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.returned[topic]
}

// known is what was last heard of a topic, or nil.
func (d *directory) known(topic string) *topicMeta {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.topics[topic]
}
