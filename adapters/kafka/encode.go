package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// header is one header of a record as it is on the wire. A nil value is a null one.
type header struct {
	name  string
	value []byte
}

// record is what is written to a partition. Nil key and value are null on the wire, empty ones aren't.
type record struct {
	time       time.Time // zero: now
	key, value []byte
	headers    []header
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The fields of a record batch, version 2, at their places.
const (
	batchLength       = 8 // bytes after this field
	batchMagic        = 16
	batchCRC          = 17
	batchAttributes   = 21 // what the checksum covers begins here
	batchLastDelta    = 23
	batchFirstTime    = 27
	batchMaxTime      = 35
	batchProducerID   = 43
	batchBaseSequence = 53
	batchCount        = 57
	batchHeader       = 61
)

// batchWriter makes one record batch, version 2, uncompressed, of no producer id. The zero value is ready.
type batchWriter struct {
	b           []byte
	count       int32
	first, last int64
}

// add appends r unless the batch would become larger than limit; the first is always taken.
func (w *batchWriter) add(r record, limit int) bool {
	if len(w.b) == 0 {
		w.b = append(w.b, make([]byte, batchHeader)...)
	}
	at := r.time
	if at.IsZero() {
		at = time.Now()
	}
	ms := at.UnixMilli()
	if w.count == 0 {
		w.first, w.last = ms, ms
	}
	delta := ms - w.first
	size := recordSize(r, delta, w.count)
	if w.count > 0 && len(w.b)+size+binary.MaxVarintLen32 > limit {
		return false
	}
	w.b = binary.AppendVarint(w.b, int64(size))
	w.b = append(w.b, 0) // attributes: none are defined
	w.b = binary.AppendVarint(w.b, delta)
	w.b = binary.AppendVarint(w.b, int64(w.count))
	w.b = appendNullable(w.b, r.key)
	w.b = appendNullable(w.b, r.value)
	w.b = binary.AppendVarint(w.b, int64(len(r.headers)))
	for _, h := range r.headers {
		w.b = binary.AppendVarint(w.b, int64(len(h.name)))
		w.b = append(w.b, h.name...)
		w.b = appendNullable(w.b, h.value)
	}
	w.count++
	w.last = max(w.last, ms)
	return true
}

// finish returns the batch, valid until the writer is used again.
func (w *batchWriter) finish() []byte {
	be := binary.BigEndian
	be.PutUint32(w.b[batchLength:], uint32(len(w.b)-batchLength-4))
	be.PutUint32(w.b[batchLength+4:], ^uint32(0)) // leader epoch: the broker's to set
	w.b[batchMagic] = 2
	be.PutUint32(w.b[batchLastDelta:], uint32(w.count-1))
	be.PutUint64(w.b[batchFirstTime:], uint64(w.first))
	be.PutUint64(w.b[batchMaxTime:], uint64(w.last))
	be.PutUint64(w.b[batchProducerID:], ^uint64(0))
	be.PutUint16(w.b[batchProducerID+8:], ^uint16(0))
	be.PutUint32(w.b[batchBaseSequence:], ^uint32(0))
	be.PutUint32(w.b[batchCount:], uint32(w.count))
	be.PutUint32(w.b[batchCRC:], crc32.Checksum(w.b[batchAttributes:], castagnoli))
	return w.b
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

func recordSize(r record, timeDelta int64, offsetDelta int32) int {
	n := 1 + varintSize(timeDelta) + varintSize(int64(offsetDelta)) + nullableSize(r.key) + nullableSize(r.value) + varintSize(int64(len(r.headers)))
	for _, h := range r.headers {
		n += varintSize(int64(len(h.name))) + len(h.name) + nullableSize(h.value)
	}
	return n
}

func nullableSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(int64(len(v))) + len(v)
}

func varintSize(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}
