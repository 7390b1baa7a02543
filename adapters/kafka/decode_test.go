package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
)

func batchOf(base int64, rs ...record) []byte {
	var w batchWriter
	for _, r := range rs {
		w.add(r, 1<<30)
	}
	b := bytes.Clone(w.finish())
	binary.BigEndian.PutUint64(b, uint64(base))
	return b
}

// altered changes a batch and makes its checksum right again.
func altered(b []byte, change func([]byte) []byte) []byte {
	b = change(bytes.Clone(b))
	binary.BigEndian.PutUint32(b[batchLength:], uint32(len(b)-batchLength-4))
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
	return b
}

func attributes(b []byte, bits uint16) []byte {
	return altered(b, func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[batchAttributes:], bits)
		return b
	})
}

// from makes a batch one of a transactional producer.
func from(b []byte, producer int64, bits uint16) []byte {
	return altered(b, func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[batchAttributes:], bits)
		binary.BigEndian.PutUint64(b[batchProducerID:], uint64(producer))
		return b
	})
}

func readAll(t *testing.T, r *batchReader) (values []string, err error) {
	t.Helper()
	for {
		rec, ok, err := r.read()
		if err != nil || !ok {
			return values, err
		}
		values = append(values, fmt.Sprintf("%d:%s", rec.offset, rec.value))
	}
}

func value(s string) record { return record{time: time.UnixMilli(1000), value: []byte(s)} }

func TestRecordRoundTrip(t *testing.T) {
	want := []record{
		{time: time.UnixMilli(1_700_000_000_123), key: []byte("k"), value: []byte("v"), headers: []header{{"a", []byte("1")}, {"a", nil}, {"", []byte{}}}},
		{time: time.UnixMilli(1_600_000_000_000), key: []byte{}, value: nil},
		{time: time.UnixMilli(1_800_000_000_000), key: nil, value: []byte{}},
	}
	r := newBatchReader(batchOf(40, want...), 40, 1<<20, nil)
	for i, w := range want {
		got, ok, err := r.read()
		if !ok || err != nil {
			t.Fatalf("record %d: %v %v", i, ok, err)
		}
		if got.offset != 40+int64(i) || !got.time.Equal(w.time) || !sameBytes(got.key, w.key) || !sameBytes(got.value, w.value) ||
			!slices.EqualFunc(got.headers, w.headers, func(a, b header) bool { return a.name == b.name && sameBytes(a.value, b.value) }) {
			t.Errorf("record %d: got %+v, want %+v", i, got, w)
		}
	}
	if _, ok, err := r.read(); ok || err != nil || r.next != 43 {
		t.Errorf("after the last: %v %v, next %d", ok, err, r.next)
	}
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestReaderGoesByTheBatchHeaders(t *testing.T) {
	holes := altered(batchOf(10, value("a"), value("b")), func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[batchLastDelta:], 9) // compaction removed the last eight
		return b
	})
	empty := altered(batchOf(20, value("x")), func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[batchLastDelta:], 4)
		binary.BigEndian.PutUint32(b[batchCount:], 0)
		return b[:batchHeader]
	})
	control := attributes(batchOf(25, value("marker")), 32)
	cut := batchOf(26, value("cut off"))
	all := slices.Concat(holes, empty, control, cut[:len(cut)-3])
	r := newBatchReader(all, 11, 1<<20, nil)
	got, err := readAll(t, r)
	if err != nil || !slices.Equal(got, []string{"11:b"}) || r.next != 26 {
		t.Errorf("got %v, %v, next %d; want 11:b, nil, 26", got, err, r.next)
	}
}

func TestReaderDropsAbortedTransactions(t *testing.T) {
	all := slices.Concat(
		from(batchOf(0, value("aborted")), 7, 16),
		from(batchOf(1, value("committed")), 8, 16),
		batchOf(2, value("plain")),
		from(batchOf(3, value("end of 7")), 7, 16|32),
		from(batchOf(4, value("next of 7")), 7, 16),
	)
	got, err := readAll(t, newBatchReader(all, 0, 1<<20, []aborted{{7, 0}}))
	if want := []string{"1:committed", "2:plain", "4:next of 7"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestReaderDecompresses(t *testing.T) {
	plain := batchOf(5, value("hello"), value("world"))
	for _, kind := range []compress.Compression{compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		t.Run(kind.String(), func(t *testing.T) {
			var z bytes.Buffer
			w := kind.Codec().NewWriter(&z)
			if _, err := w.Write(plain[batchHeader:]); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			b := attributes(altered(plain, func(b []byte) []byte { return append(b[:batchHeader], z.Bytes()...) }), uint16(kind))
			got, err := readAll(t, newBatchReader(b, 5, 1<<20, nil))
			if want := []string{"5:hello", "6:world"}; err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
			_, err = readAll(t, newBatchReader(b, 5, 10, nil))
			if e := (*CorruptError)(nil); !errors.As(err, &e) {
				t.Errorf("over the limit: got %v, want a CorruptError", err)
			}
		})
	}
}

func TestReaderStopsBeforeACorruptBatch(t *testing.T) {
	good, bad := batchOf(0, value("good")), batchOf(1, value("bad"))
	bad[len(bad)-1] ^= 1
	r := newBatchReader(append(good, bad...), 0, 1<<20, nil)
	got, err := readAll(t, r)
	var e *CorruptError
	if !errors.As(err, &e) || e.Offset != 1 || r.next != 1 || !slices.Equal(got, []string{"0:good"}) {
		t.Errorf("got %v, %v, next %d", got, err, r.next)
	}
}

func TestBatchLimit(t *testing.T) {
	var w batchWriter
	big := record{value: make([]byte, 1000)}
	if !w.add(big, 100) {
		t.Fatal("the first record is taken whatever its size")
	}
	if w.add(record{}, 100) {
		t.Fatal("a second one is not")
	}
	if n := len(w.finish()); n != batchHeader+recordSize(big, 0, 0)+2 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzBatchReader(f *testing.F) {
	b := batchOf(3, value("a"), record{key: []byte("k"), headers: []header{{"h", []byte("v")}}})
	f.Add(b)
	f.Add(attributes(b, 2))
	f.Add(attributes(b, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > batchHeader { // let it get past the checksum
			binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
		}
		r := newBatchReader(b, 0, 1<<16, []aborted{{1, 0}})
		last := int64(-1)
		for {
			rec, ok, err := r.read()
			if err != nil || !ok {
				return
			}
			if rec.offset <= last {
				t.Fatalf("offset %d after %d", rec.offset, last)
			}
			last = rec.offset
		}
	})
}

func FuzzFetchAnswer(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &leaderFetcher{limit: 1 << 20}
		_, _ = l.read(11, bytes.NewReader(b), len(b))
		_, _ = l.read(4, io.MultiReader(bytes.NewReader(b)), len(b)+10)
	})
}
