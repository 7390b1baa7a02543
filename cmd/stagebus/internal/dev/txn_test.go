package dev

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A transaction that is open at a kill is aborted: what it wrote isn't seen, and what comes after is.
func TestTransactionKilled(t *testing.T) {
	o := options(t)
	o.Topics = []Topic{{Name: "t"}}
	b := open(t, o)
	begin := func(b *Broker, body string) *kgo.Client {
		c := client(t, b, kgo.TransactionalID("x"), kgo.DefaultProduceTopic("t"))
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := c.ProduceSync(t.Context(), kgo.StringRecord(body)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	commit := func(c *kgo.Client) {
		if err := c.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Error(err)
		}
	}
	commit(begin(b, "committed"))
	open1 := begin(b, "open")
	killed := crash(t, o)
	// The kill came between the batch and its entry in the index.
	if err := cut(filepath.Join(killed.Dir, dataDir, "partitions/t-0/0.idx"), indexEntry); err != nil {
		t.Fatal(err)
	}
	if err := appendFile(filepath.Join(killed.Dir, dataDir, "partitions/t-0/0.dat"), make([]byte, 77)); err != nil {
		t.Fatal(err)
	}
	b2 := open(t, killed)
	if r := b2.Repairs(); r.Aborted != 1 || r.Torn != 77 {
		t.Errorf("%+v", r)
	}
	id, epoch, err := open1.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Whoever began it can't go on with it.
	p := produceBatch(t, b2, "t", kmsg.RecordBatch{Attributes: 0x10, ProducerID: id, ProducerEpoch: epoch, FirstSequence: 1})
	if err := kerr.ErrorForCode(p.ErrorCode); !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("the old producer got %v", err)
	}
	if i := b2.cluster.PartitionInfo("t", 0); i.LastStableOffset != i.HighWatermark {
		t.Errorf("readers stop at %d of %d", i.LastStableOffset, i.HighWatermark)
	}
	commit(begin(b2, "after"))
	reader := client(t, b2, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(got) < 2 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			got = append(got, string(r.Value))
		}
	}
	if want := []string{"committed", "after"}; !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, not %v", got, want)
	}

	// The same where the transaction was open at an end in order, and the kill came before anything else was written.
	shut(t, b)
	b3 := open(t, o)
	b4 := open(t, crash(t, o))
	if i := b4.cluster.PartitionInfo("t", 0); i.LastStableOffset != i.HighWatermark {
		t.Errorf("readers stop at %d of %d", i.LastStableOffset, i.HighWatermark)
	}
	shut(t, b3)
	open1.CloseAllowingRebalance()
}
