package kafka

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func member3(id string, topics ...string) memberInfo {
	return memberInfo{id: id, subscription: subscription{topics: topics, generation: -1}}
}

func TestRangeIsTheJavaClients(t *testing.T) {
	got := assign(Range, []memberInfo{member3("b", "t", "u"), member3("a", "t")}, map[string]int{"t": 3, "u": 2})
	want := assignment{"a": {"t": {0, 1}}, "b": {"t": {2}, "u": {0, 1}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStaticMembersKeepTheirPlaceUnderANewID(t *testing.T) {
	ms := func(id string) []memberInfo {
		a, b := member3(id, "t"), member3("m", "t")
		a.instance = "a"
		return []memberInfo{b, a}
	}
	before, after := assign(Range, ms("x"), map[string]int{"t": 3}), assign(Range, ms("b"), map[string]int{"t": 3})
	if !reflect.DeepEqual(before["x"], after["b"]) {
		t.Errorf("had %v, has %v", before["x"], after["b"])
	}
}

// check fails unless every partition that someone reads is given once, to a reader.
func check(t *testing.T, ms []memberInfo, topics map[string]int, got assignment) {
	t.Helper()
	owner := map[place]string{}
	for id, a := range got {
		for topic, ps := range a {
			for _, p := range ps {
				at := place{topic, p}
				if owner[at] != "" {
					t.Fatalf("%v is given to %s and %s", at, owner[at], id)
				}
				owner[at] = id
				i := slices.IndexFunc(ms, func(m memberInfo) bool { return m.id == id })
				if i < 0 || !slices.Contains(ms[i].topics, topic) || int(p) >= topics[topic] {
					t.Fatalf("%s got %v, which it doesn't read or doesn't exist", id, at)
				}
			}
		}
	}
	for topic, n := range topics {
		read := slices.ContainsFunc(ms, func(m memberInfo) bool { return slices.Contains(m.topics, topic) })
		for p := range n {
			if read && owner[place{topic, int32(p)}] == "" {
				t.Fatalf("partition %d of %s is nobody's", p, topic)
			}
		}
	}
}

func TestAssignorsGiveEachPartitionOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		topics := map[string]int{}
		for i := range 1 + r.IntN(4) {
			topics[fmt.Sprint("t", i)] = r.IntN(8)
		}
		var ms []memberInfo
		for i := range 1 + r.IntN(5) {
			m := member3(fmt.Sprint("m", i))
			for topic, n := range topics {
				if r.IntN(3) > 0 {
					m.topics = append(m.topics, topic)
				}
				m.owned = map[string][]int32{topic: {int32(r.IntN(n + 2)), 99, -1}} // also what isn't its own
				m.generation = int32(r.IntN(3))
			}
			ms = append(ms, m)
		}
		for _, name := range []Assignor{Range, Sticky} {
			check(t, ms, topics, assign(name, slices.Clone(ms), topics))
		}
	}
}

// TestStickyMovesLeast lets members come and go: the loads differ by one at most, and no more moves than balance needs.
func TestStickyMovesLeast(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	topics := map[string]int{"t": 12, "u": 7}
	const total = 19
	ids := []string{"m0"}
	last := assignment{}
	for gen := range int32(200) {
		if r.IntN(2) == 0 || len(ids) == 1 {
			ids = append(ids, fmt.Sprint("n", gen))
		} else {
			i := r.IntN(len(ids))
			ids = slices.Delete(ids, i, i+1)
		}
		var ms []memberInfo
		for _, id := range ids {
			m := member3(id, "t", "u")
			m.owned, m.generation = last[id], gen
			ms = append(ms, m)
		}
		got := assign(Sticky, ms, topics)
		check(t, ms, topics, got)
		kept, loads := 0, []int{}
		for _, id := range ids {
			n := 0
			for topic, ps := range got[id] {
				n += len(ps)
				for _, p := range ps {
					if slices.Contains(last[id][topic], p) {
						kept++
					}
				}
			}
			loads = append(loads, n)
		}
		if slices.Max(loads)-slices.Min(loads) > 1 {
			t.Fatalf("loads %v", loads)
		}
		// The most that can stay: each keeps up to the larger load, and of those only as many as the remainder allows more than the smaller.
		floor, more := total/len(ids), total%len(ids)
		can := 0
		for _, id := range ids {
			had := 0
			for _, ps := range last[id] {
				had += len(ps)
			}
			can += min(had, floor)
			if had > floor && more > 0 {
				can++
				more--
			}
		}
		if kept != can {
			t.Fatalf("generation %d: %d partitions stayed, %d could have", gen, kept, can)
		}
		last = maps.Clone(got)
	}
}

func TestConsumerProtocolRoundTrip(t *testing.T) {
	s := subscription{topics: []string{"a", "b"}, owned: map[string][]int32{"a": {0, 2}, "b": {1}}, generation: 7}
	for _, name := range []Assignor{Range, Sticky} {
		got, err := decodeSubscription(s.encode(name), name)
		want := s
		if name == Range {
			want.generation = -1 // only the sticky assignor's data carries it
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
	got, err := decodeAssignment(encodeAssignment(s.owned))
	if err != nil || !reflect.DeepEqual(got, s.owned) {
		t.Errorf("got %v, %v", got, err)
	}
	// version 0 of a subscription, as old clients write it
	old, err := decodeSubscription([]byte("\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"), Range)
	if err != nil || !slices.Equal(old.topics, []string{"t"}) {
		t.Errorf("got %+v, %v", old, err)
	}
}

func FuzzConsumerProtocol(f *testing.F) {
	f.Add(subscription{topics: []string{"a"}, owned: map[string][]int32{"a": {0}}}.encode(Sticky))
	f.Add([]byte("\x00\x01\x7f\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []Assignor{Range, Sticky} {
			s, err := decodeSubscription(b, name)
			if err == nil && len(s.topics) > len(b) {
				t.Errorf("%d topics out of %d bytes", len(s.topics), len(b))
			}
		}
		_, _ = decodeAssignment(b)
	})
}
