package memory_test

import (
	"reflect"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

func TestDeclare(t *testing.T) {
	b := newBroker(t, memory.Options{Partitions: 2, Capacity: 9})
	a := b.Admin()
	for _, c := range []struct {
		spec stagebus.TopicSpec
		want error
	}{
		{stagebus.TopicSpec{Name: "t", Config: map[string]string{"retention.ms": "1"}}, nil},
		{stagebus.TopicSpec{Name: "t"}, nil},
		{stagebus.TopicSpec{Name: "t", Partitions: 2, Capacity: 9, Groups: []string{"g"}}, nil},
		{stagebus.TopicSpec{Name: "t", Groups: []string{"g"}}, nil},
		{stagebus.TopicSpec{Name: "t", Partitions: 3}, stagebus.ErrConflict},
		{stagebus.TopicSpec{Name: "t", Capacity: 8}, stagebus.ErrConflict},
		{stagebus.TopicSpec{Name: "u", Partitions: 10_001}, stagebus.ErrInvalid},
		{stagebus.TopicSpec{Name: "u", Capacity: -1}, stagebus.ErrInvalid},
		{stagebus.TopicSpec{Name: "topic:u", Partitions: 3, Capacity: 1 << 40}, nil},
	} {
		if err := a.Declare(within(t), c.spec); c.want == nil {
			check(t, err)
		} else {
			wantErr(t, err, c.want)
		}
	}
	list, err := a.List(within(t))
	check(t, err)
	want := []stagebus.TopicInfo{
		{Name: "t", Kind: "topic", Partitions: []stagebus.PartitionInfo{{ID: 0}, {ID: 1}}, Groups: []stagebus.GroupInfo{{Name: "default"}, {Name: "g"}}},
		{Name: "topic:u", Kind: "topic", Partitions: []stagebus.PartitionInfo{{ID: 0}, {ID: 1}, {ID: 2}}, Groups: []stagebus.GroupInfo{{Name: "default"}}},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("list %+v\nwant %+v", list, want)
	}
}

func TestNotFound(t *testing.T) {
	a := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"}).Admin()
	_, err := a.Describe(within(t), "u")
	wantErr(t, err, stagebus.ErrNotFound)
	wantErr(t, a.Delete(within(t), "u"), stagebus.ErrNotFound)
	wantErr(t, a.Purge(within(t), "u", ""), stagebus.ErrNotFound)
	wantErr(t, a.Purge(within(t), "t", "g"), stagebus.ErrNotFound)
	if err.Error() != `describe "u" at memory://: not found; declare it first` {
		t.Error(err)
	}
}

func TestPurge(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Groups: []string{"g"}})
	sendN(t, b, "t", 3)
	check(t, b.Admin().Purge(within(t), "t", "")) // before its first consumer
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	nothing(t, c)
	sendN(t, b, "t", 3)
	ds := receive(t, c, 2)
	check(t, c.Settle(within(t), stagebus.Retry(0), ds[0].Token))
	check(t, b.Admin().Purge(within(t), "t", "default"))
	wantErr(t, c.Settle(within(t), stagebus.Done, ds[1].Token), stagebus.ErrStale)
	nothing(t, c)
	if n := depth(t, b, "t", "default"); n != 0 {
		t.Errorf("depth %d after Purge", n)
	}
	if n := depth(t, b, "t", "g"); n != 6 {
		t.Errorf("depth of the other group is %d, want 6", n)
	}
	send(t, b, stagebus.Message{Topic: "t", Body: []byte("new")})
	ds = receive(t, c, 1)
	wantBodies(t, ds, "new")
	if ds[0].Redelivered {
		t.Error("marked")
	}
}

// Delete leaves the dead letters alone, and takes the retries.
func TestDelete(t *testing.T) {
	b := newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t"})
	sendN(t, b, "t", 2)
	c := consumer(t, b, stagebus.ConsumerOptions{Topics: []string{"t"}})
	ds := receive(t, c, 2)
	check(t, c.Settle(within(t), stagebus.Reject("no"), ds[0].Token))
	check(t, c.Settle(within(t), stagebus.Retry(0), ds[1].Token))
	check(t, b.Admin().Delete(within(t), "t"))
	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "t", Partitions: 2}))
	if n := depth(t, b, "t", "default"); n != 0 {
		t.Errorf("depth %d of a new topic", n)
	}
	if n := depth(t, b, stagebus.DeadLetterTopic("t", ""), "default"); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}
