package dev

import (
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
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
	b2 := open(t, crash(t, o))
	if i := b2.cluster.PartitionInfo("t", 0); i.LastStableOffset != i.HighWatermark {
		t.Errorf("readers stop at %d of %d", i.LastStableOffset, i.HighWatermark)
	}
	commit(begin(b2, "after"))
	reader := client(t, b2, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	var got []string
	for len(got) < 2 {
		fetches := reader.PollFetches(t.Context())
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
