package dev

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// MinBytes is the least that Options.MaxBytes may be: room for the largest message in a few partitions.
const MinBytes = 16 << 20

// retainEvery is how often the bound is looked at; what arrives in between comes on top.
const retainEvery = time.Second

// topics are the names that retain asks for: kfake lists none.
type topics struct {
	mu    sync.Mutex
	names map[string]int // how often it was asked for and not there
}

func (t *topics) add(names ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = make(map[string]int)
	}
	for _, n := range names {
		t.names[n] = 0
	}
}

func (t *topics) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.names))
}

// missing forgets a topic that is not there the second time. The first time it may be about to be made.
func (t *topics) missing(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[name]++; t.names[name] > 1 {
		delete(t.names, name)
	}
}

// retain keeps the messages of all topics within MaxBytes: the largest partition loses the oldest quarter of its offsets, until all is
// a tenth below. The last batch of a partition always stays, or its offsets would begin at 0 after a restart and groups would
// skip what comes. Files go by whole segments.
func (b *Broker) retain() {
	ticks := time.NewTicker(retainEvery)
	defer ticks.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-ticks.C:
			b.trim(b.options.MaxBytes)
		}
	}
}

// part is a partition as retain sees it.
type part struct {
	topic       string
	id          int32
	first, next int64
	bytes       int64
}

func (b *Broker) trim(limit int64) {
	var parts []part
	var total int64
	for _, name := range b.topics.list() {
		infos := b.cluster.PartitionInfos(name)
		if infos == nil {
			b.topics.missing(name)
		}
		for _, i := range infos {
			parts = append(parts, part{name, i.Partition, i.LogStartOffset, i.HighWatermark, i.NumBytes})
			total += i.NumBytes
		}
	}
	if total <= limit {
		return
	}
	before := total
	for total > limit-limit/10 {
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.next-p.first < 2 })
		if len(parts) == 0 {
			break
		}
		largest := &parts[0]
		for i := range parts {
			if parts[i].bytes > largest.bytes {
				largest = &parts[i]
			}
		}
		to := largest.first + (largest.next-largest.first+3)/4
		if err := b.cluster.DeleteRecords(largest.topic, largest.id, min(to, largest.next-1)); err != nil {
			largest.next = largest.first // deleted meanwhile, or cut by a client: looked at next time
			continue
		}
		i := b.cluster.PartitionInfo(largest.topic, largest.id)
		if i == nil {
			largest.next = largest.first
			continue
		}
		total -= largest.bytes - i.NumBytes
		largest.first, largest.next, largest.bytes = i.LogStartOffset, i.HighWatermark, i.NumBytes
	}
	b.log.to.Info(fmt.Sprintf("dropped the oldest messages: %d bytes of %d, the limit is %d", before-total, before, limit))
}
