package kafka

import (
	"cmp"
	"maps"
	"slices"
)

// memberInfo is a member as the one that divides sees it.
type memberInfo struct {
	id       string
	instance string // of a static member
	subscription
}

// assignment is topic to partitions, by member.
type assignment map[string]map[string][]int32

// assign divides the partitions of each topic (given by their number) among those members that read it.
func assign(name Assignor, members []memberInfo, topics map[string]int) assignment {
	// Static members are ordered by their instance, so that a restart under a new id changes nothing.
	slices.SortFunc(members, func(a, b memberInfo) int {
		return cmp.Or(cmp.Compare(cmp.Or(a.instance, a.id), cmp.Or(b.instance, b.id)), cmp.Compare(a.id, b.id))
	})
	out := assignment{}
	for i := range members {
		out[members[i].id] = map[string][]int32{}
	}
	if name == Sticky {
		assignSticky(members, topics, out)
	} else {
		assignRange(members, topics, out)
	}
	return out
}

// assignRange is the Java client's RangeAssignor: of n partitions and k members the first n%k get one more.
func assignRange(members []memberInfo, topics map[string]int, out assignment) {
	for topic, n := range topics {
		var readers []string
		for i := range members {
			if slices.Contains(members[i].topics, topic) {
				readers = append(readers, members[i].id)
			}
		}
		next := 0
		for i, id := range readers {
			k := n / len(readers)
			if i < n%len(readers) {
				k++
			}
			for range k {
				out[id][topic] = append(out[id][topic], int32(next))
				next++
			}
		}
	}
}

// assignSticky leaves everything where it is as far as balance allows: first each partition stays with the newest owner that still
// reads it, then the rest goes to whoever has least, then partitions move from the fullest member to an emptier one
// that can take them, until no move makes the loads more equal.
func assignSticky(members []memberInfo, topics map[string]int, out assignment) {
	type state struct {
		*memberInfo
		load int
	}
	states := make([]*state, len(members))
	for i := range members {
		states[i] = &state{memberInfo: &members[i]}
	}
	owner := map[place]*state{}
	claim := slices.Clone(states)
	slices.SortStableFunc(claim, func(a, b *state) int { return cmp.Compare(b.generation, a.generation) })
	for _, s := range claim { // of two that claim one partition, the one of the newer generation has it
		for topic, ps := range s.owned {
			if !slices.Contains(s.topics, topic) {
				continue
			}
			for _, p := range ps {
				at := place{topic, p}
				if int(p) >= topics[topic] || p < 0 || owner[at] != nil {
					continue
				}
				owner[at] = s
				s.load++
			}
		}
	}
	least := func(topic string) *state {
		var best *state
		for _, s := range states {
			if slices.Contains(s.topics, topic) && (best == nil || s.load < best.load) {
				best = s
			}
		}
		return best
	}
	var all []place
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		for p := range topics[topic] {
			all = append(all, place{topic, int32(p)})
		}
	}
	for _, at := range all {
		if owner[at] != nil {
			continue
		}
		if s := least(at.topic); s != nil {
			owner[at] = s
			s.load++
		}
	}
	// Each move lowers the sum of the squares of the loads, so this ends. It takes from the fullest, or a partition might
	// have to move twice.
	for {
		var from, to *state
		var move place
		for topic := range topics {
			l := least(topic)
			for p := range topics[topic] {
				at := place{topic, int32(p)}
				if o := owner[at]; o != nil && o.load > l.load+1 && (from == nil || o.load > from.load ||
					o.load == from.load && (at.topic > move.topic || at.topic == move.topic && at.partition > move.partition)) {
					from, to, move = o, l, at
				}
			}
		}
		if from == nil {
			break
		}
		owner[move] = to
		from.load--
		to.load++
	}
	for _, at := range all {
		if s := owner[at]; s != nil {
			out[s.id][at.topic] = append(out[s.id][at.topic], at.partition)
		}
	}
}
