package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/stagebus/stagebus"
)

// partSize is how much of something large goes into one message: far below what a Kafka broker takes by default (1 MB), and enough that
// the bytes around it don't matter.
const partSize = 128 << 10

// maxParts bounds what a receiver keeps for one transfer.
const maxParts = 1 << 10

// split divides data into messages, which join puts together again.
func (s *stage) split(topic, kind string, data []byte) []stagebus.Message {
	sum := sha256.Sum256(data)
	parts := max(1, (len(data)+partSize-1)/partSize)
	ms := make([]stagebus.Message, parts)
	for i := range ms {
		m := s.message(topic, kind, headerPart, i, headerParts, parts, headerSum, hex.EncodeToString(sum[:]))
		m.ContentType = "application/octet-stream"
		m.Body = data[i*partSize : min(len(data), (i+1)*partSize)]
		ms[i] = m
	}
	return ms
}

// joiner collects the parts of one transfer. They may come in any order and more than once.
type joiner struct {
	sum   string
	parts [][]byte
	n     int
}

// add takes a part. Once all are there, it returns the whole, the first time only.
func (j *joiner) add(m *stagebus.Message) ([]byte, error) {
	parts, err := number(m, headerParts, maxParts)
	if err != nil {
		return nil, err
	}
	part, err := number(m, headerPart, parts)
	if err != nil {
		return nil, err
	}
	sum, _ := m.Headers.Get(headerSum)
	switch {
	case j.parts == nil:
		j.sum, j.parts = sum, make([][]byte, parts)
	case j.sum != sum || len(j.parts) != parts:
		return nil, errors.New("a part of another transfer than the ones before")
	}
	if j.parts[part] != nil {
		return nil, nil // again
	}
	j.parts[part] = append([]byte{}, m.Body...) // not nil, and not the rest of its batch
	if j.n++; j.n < parts {
		return nil, nil
	}
	whole := bytes.Join(j.parts, nil)
	if got := sha256.Sum256(whole); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("%d parts have the SHA-256 %x, not %s", parts, got, sum)
	}
	return whole, nil
}
