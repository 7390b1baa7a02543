package dev

import (
	"encoding/json"
	"hash/crc32"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// producers are what was collected of them.
type producers struct {
	// The last batches of each in each partition, by which a broker knows one that is sent again.
	windows map[windowKey]*window
	// Those whose transaction was aborted, with their epoch.
	aborted map[int64]int16
}

type windowKey struct {
	producer  int64
	topic     string
	partition int32
}

// window has the form of kfake's seq_windows.json.
type window struct {
	Producer  int64         `json:"pid"`
	Topic     string        `json:"topic"`
	Partition int32         `json:"partition"`
	Entries   [5]windowSlot `json:"entries"`
	Count     uint8         `json:"count"`
	At        uint8         `json:"at"` // where the next entry goes
	Epoch     int16         `json:"epoch"`
	Seen      bool          `json:"seen"`
	Next      int32         `json:"next_seq"`
}

type windowSlot struct {
	First  int32 `json:"first_seq"`
	Next   int32 `json:"next_seq"`
	Offset int64 `json:"offset"`
}

func (w *producers) add(topic string, partition int32, b *batch) {
	if b.producer < 0 || b.sequence < 0 || b.control() {
		return
	}
	k := windowKey{b.producer, topic, partition}
	if w.windows[k] == nil || w.windows[k].Epoch != b.epoch {
		w.windows[k] = &window{Producer: b.producer, Topic: topic, Partition: partition, Epoch: b.epoch, Seen: true}
	}
	e := w.windows[k]
	e.Next = int32((int64(b.sequence) + int64(b.records)) % math.MaxInt32) // kfake's modulus
	e.Entries[e.At] = windowSlot{b.sequence, e.Next, b.offset}
	e.At = (e.At + 1) % uint8(len(e.Entries))
	e.Count = min(e.Count+1, uint8(len(e.Entries)))
}

// abort ends the transactions that were open with a mark in the log. kfake by itself aborts them in its memory only: a reader that follows
// the log by its marks would take what the same producer commits later for a part of them, and hide it.
func (p *partition) abort(w *producers, open map[int64]int16, last *batch) error {
	if len(open) == 0 {
		return nil
	}
	var marks, index []byte
	next := last.offset + int64(last.records)
	for _, producer := range slices.Sorted(maps.Keys(open)) {
		marks = append(marks, abortMark(producer, open[producer], next, last.leaderEpoch)...)
		index = appendIndex(index, &batch{leaderEpoch: last.leaderEpoch})
		w.aborted[producer] = max(w.aborted[producer], open[producer])
		next++
	}
	base := p.segments[len(p.segments)-1]
	if err := appendFile(p.file(base, ".dat"), marks); err != nil {
		return err
	}
	return appendFile(p.file(base, ".idx"), index)
}

// abortMark is the batch of one record that ends a transaction.
func abortMark(producer int64, epoch int16, offset int64, leaderEpoch int32) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	value := kmsg.EndTxnMarker{}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: value.AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without the length, a varint of one byte
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: leaderEpoch, Magic: 2, Attributes: 0x30, // transactional, control
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: producer, ProducerEpoch: epoch, FirstSequence: -1,
		NumRecords: 1, Records: record.AppendTo(nil),
	}
	b.Length = int32(len(b.AppendTo(nil)) - batchLength)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], castagnoli))
	return b.AppendTo(nil)
}

// producerEntry is one entry of kfake's pids.log.
type producerEntry struct {
	Type     string `json:"type"`
	Producer int64  `json:"pid"`
	Epoch    int16  `json:"epoch"`
	Commit   *bool  `json:"commit,omitempty"`
}

// write replaces what kfake wrote at the last end in order, and makes the producers known that it only reads windows of.
func (w *producers) write(dir string) error {
	name := filepath.Join(dir, "pids.log")
	entries, _, err := readLog(name)
	if err != nil {
		return err
	}
	known := make(map[int64]bool)
	for _, b := range entries {
		var e producerEntry
		if json.Unmarshal(b, &e) == nil {
			known[e.Producer] = true
		}
	}
	var added []byte
	file := struct {
		Version int       `json:"version"`
		Windows []*window `json:"windows"`
	}{Version: entryVersion}
	for _, e := range w.windows {
		file.Windows = append(file.Windows, e)
		if !known[e.Producer] {
			known[e.Producer] = true
			added = appendEntry(added, producerEntry{Type: "init", Producer: e.Producer, Epoch: e.Epoch})
		}
	}
	for producer, epoch := range w.aborted {
		// The next epoch: who still has the old one would go on with the transaction as if nothing had happened.
		added = appendEntry(added, producerEntry{Type: "endtx", Producer: producer, Epoch: epoch + 1, Commit: new(bool)})
	}
	if err := appendFile(name, added); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "seq_windows.json"), file)
}
