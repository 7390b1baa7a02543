package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go/compress"
)

// CorruptError is a record batch that can't be read: its checksum is wrong, or its contents make no sense. The partition
// stays where it is and is tried again, for the bytes may be right the next time.
type CorruptError struct {
	Offset int64 // of the batch
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt record batch at offset %d: %s", e.Offset, e.Reason)
}

// received is a record as it was fetched. Its slices belong to the buffer of its chunk.
type received struct {
	offset  int64
	time    time.Time
	key     []byte
	value   []byte
	headers []header
	chunk   *chunk
}

// chunk is memory that is pinned as long as one of its records is: a batch's own buffer. The consumer's lock guards it.
type chunk struct {
	bytes int
	refs  int
}

// aborted is a transaction whose records from offset first on, up to its end marker, don't count.
type aborted struct{ producer, first int64 }

// batchReader reads the records of what was fetched from one partition, batch by batch. Positions come from the headers of
// the batches, never from their records: compaction leaves holes, and batches without records.
type batchReader struct {
	rest    []byte
	whole   *chunk // rest, which uncompressed records are slices of
	next    int64  // the offset that follows everything read so far
	limit   int    // of a decompressed batch
	aborted []aborted
	skip    map[int64]bool // producers inside an aborted transaction

	records   []byte // of the current batch, not read yet
	left      int32
	base      int64
	end       int64 // offset after the current batch
	firstTime int64
	logTime   time.Time // not zero: the broker's time holds for all
	chunk     *chunk
}

// newBatchReader reads b, fetched at offset from.
func newBatchReader(b []byte, from int64, limit int, ab []aborted) *batchReader {
	return &batchReader{rest: b, whole: &chunk{bytes: len(b)}, next: from, limit: limit, aborted: ab}
}

// read returns the next record, or ok false at the end. After an error the reader stands before the batch it is about.
func (r *batchReader) read() (rec received, ok bool, err error) {
	for {
		if r.left == 0 {
			r.next = max(r.next, r.end)
			if more, err := r.batch(); !more || err != nil {
				return rec, false, err
			}
			continue
		}
		rec, err = r.record()
		if err != nil {
			return rec, false, err
		}
		if rec.offset < r.next {
			continue // a batch is always whole: it may begin before the offset asked for
		}
		r.next = rec.offset + 1
		return rec, true, nil
	}
}

// batch goes to the next batch that has records to deliver.
func (r *batchReader) batch() (bool, error) {
	be := binary.BigEndian
	for {
		r.records, r.left, r.chunk = nil, 0, nil
		if len(r.rest) < batchLength+4 {
			return false, nil // what a broker cuts off at the end of an answer
		}
		base := int64(be.Uint64(r.rest))
		length := int(int32(be.Uint32(r.rest[batchLength:])))
		if length < 0 {
			return false, &CorruptError{base, "negative length"}
		}
		if length > len(r.rest)-batchLength-4 {
			return false, nil
		}
		b := r.rest[:batchLength+4+length]
		if len(b) <= batchMagic {
			return false, &CorruptError{base, "shorter than its header"}
		}
		if b[batchMagic] != 2 {
			return false, &CorruptError{base, fmt.Sprintf("message format %d, only 2 (Kafka 0.11 and newer) is read", b[batchMagic])}
		}
		if len(b) < batchHeader {
			return false, &CorruptError{base, "shorter than its header"}
		}
		if crc32.Checksum(b[batchAttributes:], castagnoli) != be.Uint32(b[batchCRC:]) {
			return false, &CorruptError{base, "wrong checksum"}
		}
		attributes := be.Uint16(b[batchAttributes:])
		delta, count := int32(be.Uint32(b[batchLastDelta:])), int32(be.Uint32(b[batchCount:]))
		if delta < 0 || count < 0 || base < 0 {
			return false, &CorruptError{base, "negative offset or count"}
		}
		end := base + int64(delta) + 1
		producer := int64(be.Uint64(b[batchProducerID:]))
		if end <= r.next || r.dropped(b, attributes, base, producer) {
			r.next = max(r.next, end)
			r.rest = r.rest[len(b):]
			continue
		}
		records, err := decompress(b[batchHeader:], attributes, r.limit)
		if err != nil {
			return false, &CorruptError{base, err.Error()}
		}
		r.rest = r.rest[len(b):]
		r.records, r.left, r.base, r.end = records, count, base, end
		r.firstTime = int64(be.Uint64(b[batchFirstTime:]))
		r.logTime = time.Time{}
		if attributes&8 != 0 {
			r.logTime = time.UnixMilli(int64(be.Uint64(b[batchMaxTime:])))
		}
		r.chunk = r.whole
		if attributes&7 != 0 {
			r.chunk = &chunk{bytes: len(records)}
		}
		if count == 0 {
			r.next = max(r.next, end)
			continue
		}
		return true, nil
	}
}

// dropped says whether the batch is never delivered: a control batch, or part of an aborted transaction. It follows the
// transactions on the way.
func (r *batchReader) dropped(b []byte, attributes uint16, base, producer int64) bool {
	if len(r.aborted) == 0 && len(r.skip) == 0 {
		return attributes&32 != 0
	}
	if r.skip == nil {
		r.skip = map[int64]bool{}
	}
	for i := 0; i < len(r.aborted); {
		if r.aborted[i].first > base+int64(int32(binary.BigEndian.Uint32(b[batchLastDelta:]))) {
			i++
			continue
		}
		r.skip[r.aborted[i].producer] = true
		r.aborted = append(r.aborted[:i], r.aborted[i+1:]...)
	}
	if attributes&32 != 0 {
		delete(r.skip, producer) // its transaction ends here
		return true
	}
	return attributes&16 != 0 && r.skip[producer]
}

func decompress(b []byte, attributes uint16, limit int) ([]byte, error) {
	kind := compress.Compression(attributes & 7)
	if kind == compress.None {
		return b, nil
	}
	codec := kind.Codec()
	if codec == nil {
		return nil, fmt.Errorf("unknown compression %d", kind)
	}
	src := codec.NewReader(bytes.NewReader(b))
	out, err := io.ReadAll(io.LimitReader(src, int64(limit)+1))
	err = errors.Join(err, src.Close())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", codec.Name(), err)
	}
	if len(out) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes when decompressed", codec.Name(), limit)
	}
	return out, nil
}

func (r *batchReader) record() (received, error) {
	bad := func(what string) (received, error) { return received{}, &CorruptError{r.base, what} }
	size, rest, ok := varint(r.records)
	if !ok || size < 0 || size > int64(len(rest)) {
		return bad("length of a record")
	}
	b := rest[:size:size]
	r.records = rest[size:]
	r.left--
	if len(b) < 1 {
		return bad("empty record")
	}
	b = b[1:]
	timeDelta, b, ok1 := varint(b)
	offsetDelta, b, ok2 := varint(b)
	key, b, ok3 := nullable(b)
	value, b, ok4 := nullable(b)
	n, b, ok5 := varint(b)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || n < 0 || n > int64(len(b)) || offsetDelta < 0 || r.base+offsetDelta >= r.end {
		return bad("record cut short")
	}
	rec := received{offset: r.base + offsetDelta, time: r.logTime, key: key, value: value, chunk: r.chunk}
	if rec.time.IsZero() && r.firstTime+timeDelta > 0 {
		rec.time = time.UnixMilli(r.firstTime + timeDelta)
	}
	if n > 0 {
		rec.headers = make([]header, 0, min(n, int64(len(b)/2)+1))
	}
	for range n {
		var name []byte
		var h header
		name, b, ok1 = nullable(b)
		h.value, b, ok2 = nullable(b)
		if !ok1 || !ok2 || name == nil {
			return bad("header cut short")
		}
		h.name = string(name)
		rec.headers = append(rec.headers, h)
	}
	return rec, nil
}

func varint(b []byte) (int64, []byte, bool) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

func nullable(b []byte) (v, rest []byte, ok bool) {
	n, b, ok := varint(b)
	switch {
	case !ok || n < -1 || n > int64(len(b)):
		return nil, nil, false
	case n == -1:
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}
