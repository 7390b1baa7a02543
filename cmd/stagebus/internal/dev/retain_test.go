package dev

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stagebus/stagebus"
)

// The oldest go, of the largest partition, until all is within the bound; what is left is the newest without a hole, also after a kill.
func TestRetain(t *testing.T) {
	for _, memory := range []bool{false, true} {
		o := options(t)
		o.MaxBytes = 32 << 20
		if memory {
			o.Dir = ""
		}
		b := open(t, o)
		bus := connect(t, b)
		send(t, bus, "small", 0, 10)
		p, err := bus.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		const n = 80
		body := bytes.Repeat([]byte("x"), 512<<10)
		for range n {
			if err := stagebus.Send(t.Context(), p, stagebus.Message{Topic: "large", Body: body}); err != nil {
				t.Fatal(err)
			}
		}
		b.trim(o.MaxBytes)
		large, small := b.cluster.PartitionInfo("large", 0), b.cluster.PartitionInfo("small", 0)
		if large.NumBytes+small.NumBytes > o.MaxBytes || large.NumBytes < o.MaxBytes/2 {
			t.Errorf("%d and %d bytes are kept", large.NumBytes, small.NumBytes)
		}
		if large.HighWatermark != n || large.LogStartOffset < 10 || small.LogStartOffset != 0 {
			t.Errorf("kept from %d to %d, and from %d", large.LogStartOffset, large.HighWatermark, small.LogStartOffset)
		}
		b.trim(1) // the last of each stays
		if i := b.cluster.PartitionInfo("large", 0); i.LogStartOffset != n-1 {
			t.Errorf("kept from %d", i.LogStartOffset)
		}
		if err := bus.Admin().Delete(t.Context(), "small"); err != nil {
			t.Fatal(err)
		}
		b.trim(1)
		b.trim(1)
		if names := b.topics.list(); len(names) != 1 {
			t.Errorf("%v are asked for", names)
		}
		if memory {
			continue
		}
		if size := diskSize(t, o.Dir); size > 16<<20 {
			t.Errorf("%d bytes are left on the disk", size)
		}
		o = crash(t, o)
		if i := open(t, o).cluster.PartitionInfo("large", 0); i.HighWatermark != n {
			t.Errorf("after a kill it goes on at %d", i.HighWatermark)
		}
	}
}

func diskSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, dataDir, "partitions", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}
