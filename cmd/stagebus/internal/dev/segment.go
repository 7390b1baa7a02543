package dev

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
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

// repair reads a partition through after a kill: it cuts off a torn end and returns its length, makes the index fit the batches, aborts
// open transactions, and collects what producers sent.
func (p *partition) repair(w *producers) (torn int64, err error) {
	open := make(map[int64]int16) // transactions, by producer, with its epoch
	var last batch
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
			last = batches[i]
			w.add(p.topic, p.id, &last)
			switch {
			case last.control():
				delete(open, last.producer)
			case last.transactional():
				open[last.producer] = last.epoch
			}
		}
	}
	return torn, p.abort(w, open, &last)
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
		index = appendIndex(index, &batches[i])
	}
	return replace(name, index)
}

func appendIndex(index []byte, b *batch) []byte {
	var e [indexEntry]byte
	e[0] = entryVersion
	binary.LittleEndian.PutUint32(e[2:], uint32(b.leaderEpoch))
	// 8 bytes of a timestamp that kfake counts again when it reads
	if b.transactional() && !b.control() {
		e[14] = 1
	}
	e[1] = byte(crc32.Checksum(e[2:], castagnoli))
	return append(index, e[:]...)
}
