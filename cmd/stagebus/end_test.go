package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func delivered(topic string, partition int32, offset int64) *stagebus.Delivery {
	return &stagebus.Delivery{Position: stagebus.Position{Topic: topic, Partition: partition, Offset: offset}}
}

func TestEndOfPartitions(t *testing.T) {
	e := &end{log: true, targets: map[partition]int64{}}
	info := stagebus.TopicInfo{Partitions: []stagebus.PartitionInfo{{ID: 0, First: 3, Next: 5}, {ID: 1, First: 0, Next: 0}, {ID: 2, First: 7, Next: 7}, {ID: 3, First: 0, Next: 2}}}
	e.add("topic:x", info, stagebus.ConsumerOptions{Mode: stagebus.Assigned})
	if len(e.targets) != 2 || e.reached() {
		t.Fatalf("%+v", e)
	}
	e.saw(delivered("x", 0, 4))
	e.saw(delivered("x", 3, 0))
	if e.reached() {
		t.Error("partition 3 isn't read to its end")
	}
	if got, want := e.missing(), "x/3 up to offset 1"; got != want {
		t.Errorf("missing %q, want %q", got, want)
	}
	e.saw(delivered("x", 3, 5)) // what was sent meanwhile: the last message of before was a transaction's marker
	if !e.reached() {
		t.Error("everything is read")
	}
}

func TestEndFromOffset(t *testing.T) {
	e := &end{log: true, targets: map[partition]int64{}}
	info := stagebus.TopicInfo{Partitions: []stagebus.PartitionInfo{{ID: 0, First: 0, Next: 5}, {ID: 1, First: 0, Next: 9}}}
	e.add("x", info, stagebus.ConsumerOptions{Mode: stagebus.Assigned, Start: stagebus.Start{Kind: stagebus.StartOffset, Offset: 5}})
	if len(e.targets) != 1 {
		t.Errorf("%+v", e.targets)
	}
}

func TestEndOfGroups(t *testing.T) {
	group := func(depth int64) stagebus.TopicInfo {
		return stagebus.TopicInfo{Partitions: []stagebus.PartitionInfo{{Next: 100}}, Groups: []stagebus.GroupInfo{{Name: "g", Depth: depth}}}
	}
	o := stagebus.ConsumerOptions{Group: "g"}
	for _, c := range []struct {
		name  string
		log   bool
		infos []stagebus.TopicInfo
		n     int64
		want  bool
	}{
		{"nothing left", true, []stagebus.TopicInfo{group(0)}, 0, true},
		{"some left", true, []stagebus.TopicInfo{group(2)}, 1, false},
		{"all came", true, []stagebus.TopicInfo{group(2)}, 2, true},
		{"two topics", true, []stagebus.TopicInfo{group(2), group(1)}, 2, false},
		{"two topics came", true, []stagebus.TopicInfo{group(2), group(1)}, 3, true},
		{"a queue that looks empty", false, []stagebus.TopicInfo{group(0)}, 0, false},
		{"a queue", false, []stagebus.TopicInfo{group(2)}, 1, false},
		{"a queue that was read", false, []stagebus.TopicInfo{group(2)}, 2, true},
		{"a new group", true, []stagebus.TopicInfo{{Partitions: []stagebus.PartitionInfo{{Next: 1}}}}, 0, false},
		{"a new group of an empty topic", true, []stagebus.TopicInfo{{}}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &end{log: c.log, targets: map[partition]int64{}, n: c.n}
			for _, i := range c.infos {
				e.add("x", i, o)
			}
			if got := e.reached(); got != c.want {
				t.Errorf("reached is %v: %+v", got, e)
			}
		})
	}
}

// A start in time may lie behind the last message of a partition: then nothing comes, and that is the end. If the broker said meanwhile that we
// may not read, it is a failure.
func TestEndByIdle(t *testing.T) {
	for _, refused := range []error{nil, stagebus.ErrAuth} {
		for name, e := range map[string]*end{
			"a partition": {log: true, idle: 10 * time.Millisecond, depth: -1, targets: map[partition]int64{{"x", 0}: 3}},
			"a group":     {log: true, idle: 10 * time.Millisecond, depth: 2, targets: map[partition]int64{{"x", 0}: 3}},
		} {
			var warned string
			r := &reader{
				c: &fakeConsumer{deliveries: make([]stagebus.Delivery, 1)}, out: newPrinter(newBuffer(), raw, false), end: e, dst: make([]stagebus.Delivery, 4),
				warn: func(format string, _ ...any) { warned = format }, refused: func() error { return refused },
			}
			err := r.run(t.Context(), 0)
			if !errors.Is(err, refused) || r.n != 1 || r.why != "nothing more came for 10ms" || (warned != "") != (name == "a partition" && refused == nil) {
				t.Errorf("%s, %v: %v, %d, %q, %q", name, refused, err, r.n, r.why, warned)
			}
		}
	}
}
