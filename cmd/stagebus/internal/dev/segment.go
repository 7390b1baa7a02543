package dev

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// A segment is a file of record batches as they travel, version 2. Beside it is an index with an entry for each batch.
const (
	batchHeader = 61
	batchLength = 12 // the length is that of what follows it
	indexEntry  = 15
)

// batch is what a repair reads of a record batch.
type batch struct {
	offset      int64
	leaderEpoch int32
	attributes  int16
	producer    int64
	epoch       int16
	sequence    int32
	records     int32
}

func (b *batch) control() bool       { return b.attributes&0x20 != 0 }
func (b *batch) transactional() bool { return b.attributes&0x10 != 0 }

// repair reads a partition through after a kill: it cuts off a torn end and returns its length, makes the index fit the batches and
// collects what producers sent.
func (p *partition) repair(w producers) (torn int64, err error) {
	var s snapshot
	if err := readJSON(p.snapshot(), &s); err != nil {
		return 0, err
	}
	if s.LastStableOffset < s.HighWatermark {
		// Of an open transaction that ended with the process. Reading the segments, kfake aborts it; by the snapshot, readers
		// would stop there for good.
		if err := os.Remove(p.snapshot()); err != nil {
			return 0, err
		}
	}
	for _, base := range p.segments {
		batches, rest, err := readSegment(p.file(base, ".dat"))
		if err != nil {
			return 0, err
		}
		if rest > 0 {
			torn += rest
			if err := cut(p.file(base, ".dat"), rest); err != nil {
				return 0, err
			}
		}
		if err := p.repairIndex(base, batches); err != nil {
			return 0, err
		}
		for i := range batches {
			w.add(p.topic, p.id, &batches[i])
		}
	}
	return torn, nil
}

// readSegment returns the batches of a segment and the length of what is behind them.
func readSegment(name string) (batches []batch, rest int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	rest = info.Size()
	in := bufio.NewReaderSize(f, 1<<16)
	var buf []byte
	for rest >= batchHeader {
		head, err := in.Peek(batchLength)
		if err != nil {
			return nil, 0, err
		}
		size := batchLength + int64(int32(binary.BigEndian.Uint32(head[8:])))
		if size < batchHeader || size > rest {
			break
		}
		if int64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if _, err := io.ReadFull(in, buf); err != nil {
			return nil, 0, err
		}
		if crc32.Checksum(buf[21:], castagnoli) != binary.BigEndian.Uint32(buf[17:]) {
			break
		}
		batches = append(batches, batch{
			offset:      int64(binary.BigEndian.Uint64(buf)),
			leaderEpoch: int32(binary.BigEndian.Uint32(buf[12:])),
			attributes:  int16(binary.BigEndian.Uint16(buf[21:])),
			producer:    int64(binary.BigEndian.Uint64(buf[43:])),
			epoch:       int16(binary.BigEndian.Uint16(buf[51:])),
			sequence:    int32(binary.BigEndian.Uint32(buf[53:])),
			records:     int32(binary.BigEndian.Uint32(buf[57:])),
		})
		rest -= size
	}
	return batches, rest, nil
}

// cut takes bytes off the end of a file.
func cut(name string, n int64) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, info.Size()-n)
}

// repairIndex writes an index anew that doesn't have an entry for each batch. It is written after the batch: a kill in between leaves it
// one short, and all that follow would stand one too early, with another batch's marks of transactions.
func (p *partition) repairIndex(base int64, batches []batch) error {
	name := p.file(base, ".idx")
	info, err := os.Stat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && info.Size() == int64(len(batches))*indexEntry {
		return nil
	}
	index := make([]byte, 0, len(batches)*indexEntry)
	for i := range batches {
		var e [indexEntry]byte
		e[0] = entryVersion
		binary.LittleEndian.PutUint32(e[2:], uint32(batches[i].leaderEpoch))
		// 8 bytes of a timestamp that kfake counts again when it reads
		if batches[i].transactional() && !batches[i].control() {
			e[14] = 1
		}
		e[1] = byte(crc32.Checksum(e[2:], castagnoli))
		index = append(index, e[:]...)
	}
	return replace(name, index)
}

// producers are the last batches of each producer in each partition, by which a broker knows one that is sent again.
type producers map[windowKey]*window

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

func (w producers) add(topic string, partition int32, b *batch) {
	if b.producer < 0 || b.sequence < 0 || b.control() {
		return
	}
	k := windowKey{b.producer, topic, partition}
	if w[k] == nil || w[k].Epoch != b.epoch {
		w[k] = &window{Producer: b.producer, Topic: topic, Partition: partition, Epoch: b.epoch, Seen: true}
	}
	e := w[k]
	e.Next = int32((int64(b.sequence) + int64(b.records)) % math.MaxInt32) // kfake's modulus
	e.Entries[e.At] = windowSlot{b.sequence, e.Next, b.offset}
	e.At = (e.At + 1) % uint8(len(e.Entries))
	e.Count = min(e.Count+1, uint8(len(e.Entries)))
}

// producerEntry is one entry of kfake's pids.log.
type producerEntry struct {
	Type     string `json:"type"`
	Producer int64  `json:"pid"`
	Epoch    int16  `json:"epoch"`
}

// write replaces what kfake wrote at the last end in order, and makes the producers known that it only reads windows of.
func (w producers) write(dir string) error {
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
	for _, e := range w {
		file.Windows = append(file.Windows, e)
		if !known[e.Producer] {
			known[e.Producer] = true
			added = appendEntry(added, producerEntry{"init", e.Producer, e.Epoch})
		}
	}
	if err := appendFile(name, added); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "seq_windows.json"), file)
}
