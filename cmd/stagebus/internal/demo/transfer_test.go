package demo

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

func testStage(name string) *stage {
	return &stage{o: &Options{Prefix: "p", Size: Sizes["small"], Seed: 1}, name: name, stop: func(error) {}}
}

// The parts come in any order and more than once; the whole comes out once.
func TestTransfer(t *testing.T) {
	s := testStage(preprocess)
	for _, size := range []int{0, 1, partSize, partSize + 1, 5*partSize - 1} {
		data := make([]byte, size)
		random := rand.New(rand.NewPCG(1, uint64(size)))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		ms := s.split(topicDataset, kindDataset, data)
		for i := range ms {
			if ms[i].Topic != "p.dataset" || len(ms[i].Body) > partSize {
				t.Errorf("%d bytes: part %d goes to %s, %d bytes", size, i, ms[i].Topic, len(ms[i].Body))
			}
		}
		ms = append(ms, ms...)
		random.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		var j joiner
		wholes := 0
		for i := range ms {
			whole, err := j.add(&ms[i])
			if err != nil {
				t.Fatal(err)
			}
			if whole == nil {
				continue
			}
			if wholes++; !bytes.Equal(whole, data) {
				t.Errorf("%d bytes came out otherwise", size)
			}
		}
		if want := 1; wholes != want && size > 0 || size == 0 && wholes > 1 {
			t.Errorf("%d bytes came out %d times", size, wholes)
		}
	}
}

func TestTransferRefuses(t *testing.T) {
	s := testStage(preprocess)
	data := []byte(strings.Repeat("x", 2*partSize))
	good := s.split(topicDataset, kindDataset, data)
	changed := func(change func(m *stagebus.Message)) stagebus.Message {
		m := good[1].Clone()
		change(&m)
		return m
	}
	for name, bad := range map[string]stagebus.Message{
		"another byte":     changed(func(m *stagebus.Message) { m.Body[0] ^= 1 }),
		"another transfer": changed(func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerSum, "00") }),
		"more parts":       changed(func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerParts, "3") }),
		"too many parts":   changed(func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerParts, "1000000") }),
		"no number":        changed(func(m *stagebus.Message) { m.Headers = m.Headers.Del(headerPart) }),
		"below zero":       changed(func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerPart, "-1") }),
		"beyond the end":   changed(func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerPart, "2") }),
	} {
		var j joiner
		if _, err := j.add(&good[0]); err != nil {
			t.Fatal(err)
		}
		if whole, err := j.add(&bad); err == nil {
			t.Errorf("%s: it took it, %d bytes came out", name, len(whole))
		}
	}
}
