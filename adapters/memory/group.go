package memory

import (
	"slices"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ladder"
)

// group is a reader of one topic: a consumer group, or the private one of an Ephemeral or Assigned consumer.
type group struct {
	t          *topic
	name       string // empty for a private one
	members    []*consumer
	cursors    []*cursor // of t's partitions
	retries    []*cursor // of the group's own logs, one for each delay
	generation int64
}

// cursor is a group's place in one log.
type cursor struct {
	g         *group
	partition *partition
	committed int64     // all before are settled
	delivered int64     // some before this may have been delivered: they are marked when they come again
	lane      *lane     // the stretch that is being delivered, if any
	want      *consumer // who shall have the next lane, once this one is sealed
}

// group returns the group of that name, or nil.
func (t *topic) group(name string) *group {
	for _, g := range t.groups {
		if g.name == name && name != "" {
			return g
		}
	}
	return nil
}

// addGroup makes a group that begins at start, in the partitions given or, with none, in all.
func (t *topic) addGroup(name string, start stagebus.Start, partitions []int32) *group {
	g := &group{t: t, name: name}
	for _, p := range t.partitions {
		if len(partitions) == 0 || slices.Contains(partitions, p.id) {
			c := &cursor{g: g, partition: p, committed: p.search(start)}
			g.cursors = append(g.cursors, c)
			p.cursors = append(p.cursors, c)
		}
	}
	t.groups = append(t.groups, g)
	return g
}

// remove ends the group and forgets its position. Its lanes are sealed.
func (g *group) remove() {
	g.members = nil
	g.assign()
	for _, c := range g.all() {
		if c.lane != nil {
			c.lane.seal()
		}
		p := c.partition
		p.settled() // while the cursor still counts
		p.cursors = slices.DeleteFunc(p.cursors, func(x *cursor) bool { return x == c })
	}
	g.t.groups = slices.DeleteFunc(g.t.groups, func(x *group) bool { return x == g })
	g.t.room.fire()
}

func (g *group) all() []*cursor { return slices.Concat(g.cursors, g.retries) }

// assign divides the cursors among the members. Lanes that move drain first.
func (g *group) assign() {
	g.generation++
	g.divide(g.cursors)
	g.divide(g.retries) // on their own: they are rarely busy, and must not unbalance the partitions
}

// divide gives each member an equal share of cs, and leaves with a member what it has as far as that allows.
func (g *group) divide(cs []*cursor) {
	share := map[*consumer]int{}
	most, extra := 0, 0 // members get most, and so many of them one more
	if n := len(g.members); n > 0 {
		most, extra = len(cs)/n, len(cs)%n
	}
	take := func(c *cursor, m *consumer) bool {
		if share[m] == most && extra > 0 {
			extra--
		} else if share[m] >= most {
			return false
		}
		share[m]++
		c.want = m
		return true
	}
	var rest []*cursor
	for _, c := range cs {
		if !slices.Contains(g.members, c.want) || !take(c, c.want) {
			c.want = nil
			rest = append(rest, c)
		}
	}
	for _, c := range rest {
		for _, m := range g.members {
			if take(c, m) {
				break
			}
		}
	}
	for _, c := range cs {
		switch {
		case c.lane == nil:
			c.begin()
		case c.lane.consumer != c.want:
			c.lane.drain()
		}
	}
}

// retry appends a copy of the message at offset of c's log to the group's log for that delay.
func (c *cursor) retry(offset int64, after time.Duration) {
	r := c.partition.at(offset)
	a := &again{attempt: r.attempt() + 1, origin: c.origin(offset)}
	step := ladder.Step(after)
	a.due = time.Now().Add(step)
	name := stagebus.RetryTopic(c.g.t.name, c.g.name) + ladder.Millis(step)
	i := slices.IndexFunc(c.g.retries, func(x *cursor) bool { return x.partition.topic == name })
	if i < 0 {
		i = len(c.g.retries)
		log := &cursor{g: c.g, partition: &partition{topic: name}}
		log.partition.cursors = []*cursor{log}
		c.g.retries = append(c.g.retries, log)
		c.g.assign()
	}
	c.g.retries[i].partition.push(r.Message, a)
}

// origin is where the message at offset of c's log was sent to.
func (c *cursor) origin(offset int64) stagebus.Position {
	if r := c.partition.at(offset); r.again != nil {
		return r.again.origin
	}
	return stagebus.Position{Topic: c.g.t.name, Partition: c.partition.id, Offset: offset}
}

// commit moves the group's position to mark, and makes room.
func (c *cursor) commit(mark int64) {
	if mark <= c.committed {
		return
	}
	c.committed = mark
	if p := c.partition; slices.Contains(c.g.retries, c) {
		for p.first < mark { // nobody else reads it
			p.drop()
		}
	}
	c.g.t.room.fire()
}

// depth is how much the group has not settled.
func (g *group) depth() int64 {
	var n int64
	for _, c := range g.all() {
		n += c.partition.next - c.committed
	}
	return n
}

// purge settles everything. Tokens of before are stale.
func (g *group) purge() {
	for _, c := range g.all() {
		if c.lane != nil {
			want := c.want
			c.want = nil // or the next lane would begin before the position has moved
			c.lane.seal()
			c.want = want
		}
		c.commit(c.partition.next)
		c.begin()
	}
}
