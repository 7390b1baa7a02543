package dev

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// settle consumes and settles n messages of a group.
func settle(t *testing.T, bus *stagebus.Broker, topic, group string, n int) {
	t.Helper()
	c, err := bus.Consumer(t.Context(), stagebus.ConsumerOptions{Topics: []string{topic}, Group: group, Prefetch: n})
	if err != nil {
		t.Fatal(err)
	}
	ds := make([]stagebus.Delivery, 1)
	for range n {
		if _, err := c.Receive(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
		if err := c.Settle(t.Context(), stagebus.Done, ds[0].Token); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// committed is what a group has committed for partition 0; -1: nothing.
func committed(b *Broker, topic, group string) int64 {
	g := b.cluster.GroupInfo(group)
	if g == nil {
		return -1
	}
	c, ok := g.Commits[topic][0]
	if !ok {
		return -1
	}
	return c.Offset
}

// Writes that a kill has torn: whatever file ends too early or in junk, the broker starts, what is before the torn end is there, and
// what is written after that survives the next kill.
func TestTorn(t *testing.T) {
	o := options(t)
	b := open(t, o)
	bus := connect(t, b)
	send(t, bus, "t", 0, 40)
	settle(t, bus, "t", "g", 10)
	settle(t, bus, "t", "g", 10)
	init := kmsg.NewPtrInitProducerIDRequest()
	resp, err := init.RequestWith(t.Context(), client(t, b))
	if err != nil {
		t.Fatal(err)
	}
	produce(t, b, "t", resp.ProducerID, 0, 40)
	for seed := range 24 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			o := crash(t, o)
			name := []string{"partitions/t-0/0.dat", "partitions/t-0/0.idx", "groups.log", "pids.log"}[seed%4]
			tear(t, rnd, filepath.Join(o.Dir, dataDir, name))
			b := open(t, o)
			got := bodies(t, b, "t")
			if want := append(numbers(0, 40), "produced"); len(got) > len(want) || !reflect.DeepEqual(got, want[:len(got)]) {
				t.Fatalf("there is %v", got)
			}
			if len(got) < 41 && seed%4 != 0 {
				t.Fatalf("%d messages are left after damage to %s", len(got), name)
			}
			bus := connect(t, b)
			send(t, bus, "t", 1000, 5)
			settle(t, bus, "t", "g", 1) // commits
			at := committed(b, "t", "g")

			b = open(t, crash(t, o))
			if b.Repairs().Torn != 0 {
				t.Errorf("%+v", b.Repairs())
			}
			if want := append(got, numbers(1000, 5)...); !reflect.DeepEqual(bodies(t, b, "t"), want) {
				t.Errorf("there is %v, not %v", bodies(t, b, "t"), want)
			}
			if now := committed(b, "t", "g"); now != at || at < 1 {
				t.Errorf("the group is at %d, not at %d", now, at)
			}
		})
	}
}

// tear cuts the end off a file or lets it end in junk.
func tear(t *testing.T, rnd *rand.Rand, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		t.Fatalf("%s is empty: nothing to tear", name)
	}
	switch rnd.IntN(3) {
	case 0: // junk behind the end
		for range 1 + rnd.IntN(100) {
			b = append(b, byte(rnd.Uint32()))
		}
	case 1: // zeros, as a file system may leave
		b = append(b, make([]byte, 1+rnd.IntN(100))...)
	default:
		b = b[:rnd.IntN(len(b))]
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// produce sends one batch of an idempotent producer as such, which must get that offset.
func produce(t *testing.T, b *Broker, topic string, producer int64, sequence int32, offset int64) {
	t.Helper()
	p := produceBatch(t, b, topic, kmsg.RecordBatch{ProducerID: producer, FirstSequence: sequence})
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil || p.BaseOffset != offset {
		t.Errorf("sequence %d: offset %d, %v; want offset %d", sequence, p.BaseOffset, err, offset)
	}
}

// produceBatch sends a batch with one record, whatever its producer.
func produceBatch(t *testing.T, b *Broker, topic string, batch kmsg.RecordBatch) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	record := kmsg.Record{Value: []byte("produced"), Key: []byte{}}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without the length, a varint of one byte
	batch.PartitionLeaderEpoch, batch.Magic, batch.NumRecords, batch.Records = -1, 2, 1, record.AppendTo(nil)
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-batchLength))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))

	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rt.TopicID = b.cluster.TopicInfo(topic).TopicID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = raw
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client(t, b))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].Partitions[0]
}

// A batch that an idempotent producer sends again after a kill is not taken for a new one, whether its producer was there at the last
// end in order or came after it, and its next batch is welcome.
func TestProducersKilled(t *testing.T) {
	o := options(t)
	o.Topics = []Topic{{Name: "t"}}
	b := open(t, o)
	for i := range int64(3) {
		produce(t, b, "t", 1, int32(i), i)
	}
	shut(t, b)
	b = open(t, o) // the windows that were written now grow old
	for i := int64(3); i < 10; i++ {
		produce(t, b, "t", 1, int32(i), i)
	}
	produce(t, b, "t", 2, 0, 10)

	o = crash(t, o)
	b = open(t, o)
	for i := int64(5); i < 10; i++ { // five are remembered
		produce(t, b, "t", 1, int32(i), i)
	}
	produce(t, b, "t", 2, 0, 10)
	produce(t, b, "t", 1, 10, 11)
	produce(t, b, "t", 2, 1, 12)
	shut(t, b)

	b = open(t, o)
	produce(t, b, "t", 2, 1, 12)
	produce(t, b, "t", 2, 2, 13)
	if n := b.cluster.PartitionInfo("t", 0).HighWatermark; n != 14 {
		t.Errorf("%d messages, not 14", n)
	}
}

// A partition whose messages were all deleted goes on counting, or groups would skip what comes next.
func TestEmptiedPartition(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			o := options(t)
			b := open(t, o)
			bus := connect(t, b)
			send(t, bus, "t", 0, 8)
			settle(t, bus, "t", "g", 8)
			if err := b.cluster.DeleteRecords("t", 0, -1); err != nil {
				t.Fatal(err)
			}
			for range 3 { // and again
				if killed {
					o = crash(t, o)
				} else {
					hangUp(t, bus)
					shut(t, b)
				}
				b = open(t, o)
				bus = connect(t, b)
				if i := b.cluster.PartitionInfo("t", 0); i.LogStartOffset != 8 || i.HighWatermark != 8 {
					t.Fatalf("%+v", i)
				}
			}
			send(t, bus, "t", 8, 2)
			settle(t, bus, "t", "g", 2)
		})
	}
}

// A group that was deleted doesn't come back with its offsets; one that lives isn't deleted by who only tries.
func TestDeletedGroupKilled(t *testing.T) {
	o := options(t)
	b := open(t, o)
	bus := connect(t, b)
	send(t, bus, "t", 0, 4)
	settle(t, bus, "t", "gone", 4)
	settle(t, bus, "t", "busy", 4)
	c, err := bus.Consumer(t.Context(), stagebus.ConsumerOptions{Topics: []string{"t"}, Group: "busy"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is settled
	if _, err := b.cluster.WaitGroupStable(t.Context(), "busy", 1); err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{"gone", "busy", "never"}
	if _, err := req.RequestWith(t.Context(), client(t, b)); err != nil {
		t.Fatal(err)
	}
	b = open(t, crash(t, o))
	if at := committed(b, "t", "gone"); at != -1 {
		t.Errorf("the deleted group is at %d", at)
	}
	if at := committed(b, "t", "busy"); at != 4 {
		t.Errorf("the other group is at %d, not at 4", at)
	}
}

// kfake's own compaction would delete before it writes, so its timer is out of reach; kfake tells a setting that it goes by.
func TestNotCompacted(t *testing.T) {
	b := open(t, options(t))
	req := kmsg.NewPtrDescribeConfigsRequest()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeBroker, "0", []string{"log.cleaner.backoff.ms"}
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(t.Context(), client(t, b))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.Resources[0].Configs {
		if c.Name == "log.cleaner.backoff.ms" && c.Value != nil {
			if ms, err := strconv.ParseInt(*c.Value, 10, 64); err != nil || ms < 365*24*60*60*1000 {
				t.Errorf("every %s ms, %v", *c.Value, err)
			}
			return
		}
	}
	t.Errorf("it isn't set: %+v", resp.Resources)
}
