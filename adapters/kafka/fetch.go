package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	wire "github.com/segmentio/kafka-go/protocol/fetch"
)

// fetcher asks one broker for what several partitions have.
type fetcher interface {
	fetch(ctx context.Context, node int32, wait time.Duration, parts []fetchPart) ([]fetchResult, error)
}

type fetchPart struct {
	place
	offset int64
	bytes  int
}

// fetchResult is what a broker answered for one partition. records is its own memory, nobody else's.
type fetchResult struct {
	place
	err     kgo.Error
	end     int64 // offset of the next message that will be sent
	aborted []aborted
	records []byte
}

// leaderFetcher reads answers itself: kafka-go's reader has no use for the headers of batches, which say where to go on.
type leaderFetcher struct {
	c     *client
	limit int // of one answer
}

func (f *leaderFetcher) fetch(ctx context.Context, node int32, wait time.Duration, parts []fetchPart) ([]fetchResult, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+f.c.timeout)
	defer cancel()
	req := &wire.Request{
		ReplicaID: -1, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: 1,
		IsolationLevel: 1, // committed: aborted messages must not be seen
		SessionEpoch:   -1,
	}
	total := 0
	index := map[string]int{}
	for _, p := range parts {
		i, ok := index[p.topic]
		if !ok {
			i = len(req.Topics)
			index[p.topic] = i
			req.Topics = append(req.Topics, wire.RequestTopic{Topic: p.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, wire.RequestPartition{
			Partition: p.partition, CurrentLeaderEpoch: -1, FetchOffset: p.offset, LogStartOffset: -1, PartitionMaxBytes: int32(p.bytes),
		})
		total += p.bytes
	}
	req.MaxBytes = int32(min(total, f.limit/2))
	m, err := f.c.askRaw(ctx, node, req, f.read)
	if err != nil {
		return nil, err
	}
	a := m.(*fetchAnswer)
	if a.err != 0 {
		return nil, a.err
	}
	return a.results, nil
}

type fetchAnswer struct {
	err     kgo.Error
	results []fetchResult
}

// ApiKey implements protocol.Message.
func (*fetchAnswer) ApiKey() protocol.ApiKey { return protocol.Fetch }

// read reads an answer of n bytes, versions 4 to 11. What a partition brought gets memory of its own, which grows with
// what really arrives.
func (f *leaderFetcher) read(version int16, r io.Reader, n int) (protocol.Message, error) {
	if version < 4 || version > 11 {
		return nil, kgo.UnsupportedVersion
	}
	if n > f.limit {
		return nil, fmt.Errorf("an answer of %d bytes, the limit is %d", n, f.limit)
	}
	w := wireReader{r: io.LimitReader(r, int64(n))}
	a := &fetchAnswer{}
	w.int32() // throttled
	if version >= 7 {
		a.err = kgo.Error(w.int16())
		w.int32() // session
	}
	for topics := w.int32(); topics > 0 && w.err == nil; topics-- {
		topic := w.string()
		for ps := w.int32(); ps > 0 && w.err == nil; ps-- {
			p := fetchResult{place: place{topic, w.int32()}}
			p.err = kgo.Error(w.int16())
			p.end = w.int64() // the high watermark
			w.int64()         // last stable offset
			if version >= 5 {
				w.int64() // start of the log
			}
			for ab := w.int32(); ab > 0 && w.err == nil; ab-- {
				p.aborted = append(p.aborted, aborted{producer: w.int64(), first: w.int64()})
			}
			if version >= 11 {
				w.int32() // another replica to read from
			}
			p.records = w.bytes()
			a.results = append(a.results, p)
		}
	}
	if w.err != nil {
		return nil, w.err
	}
	_, err := io.Copy(io.Discard, w.r) // nothing, or what we don't know
	return a, err
}

// wireReader reads fields; after the first error all are zero.
type wireReader struct {
	r   io.Reader
	b   [8]byte
	err error
}

func (w *wireReader) fixed(n int) []byte {
	b := w.b[:n]
	if w.err == nil {
		if _, err := io.ReadFull(w.r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			w.err = err
		}
	}
	if w.err != nil {
		clear(b)
	}
	return b
}

func (w *wireReader) int16() int16 { return int16(binary.BigEndian.Uint16(w.fixed(2))) }
func (w *wireReader) int32() int32 { return int32(binary.BigEndian.Uint32(w.fixed(4))) }
func (w *wireReader) int64() int64 { return int64(binary.BigEndian.Uint64(w.fixed(8))) }

func (w *wireReader) string() string { return string(w.take(int(w.int16()))) }
func (w *wireReader) bytes() []byte  { return w.take(int(w.int32())) }

// take reads n bytes into memory of its own, at most 1 MiB ahead of what has arrived.
func (w *wireReader) take(n int) []byte {
	if n <= 0 || w.err != nil {
		return nil
	}
	const step = 1 << 20
	b := make([]byte, min(n, step))
	for have := 0; ; {
		m, err := io.ReadFull(w.r, b[have:])
		have += m
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			w.err = err
			return nil
		}
		if have == n {
			return b
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, b)
		b = grown
	}
}
