package kafka

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// The contents that members of a group exchange through the broker: Kafka's ConsumerProtocol, as all clients write it, so that
// members in other languages can share a group with ours.

const protocolType = "consumer"

// subscription is what a member tells the one that divides: what it reads, and for sticky assignment what it has.
type subscription struct {
	topics     []string
	owned      map[string][]int32
	generation int32
}

var errProtocol = errors.New("malformed ConsumerProtocol data")

// encode writes version 1, and what the member owns in both places where assignors look for it: the list of version 1
// and the user data of the Java sticky assignor.
func (s subscription) encode(name Assignor) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1)
	b = appendArray(b, len(s.topics))
	for _, t := range s.topics {
		b = appendString(b, t)
	}
	if name == Sticky {
		user := appendPartitions(nil, s.owned)
		user = binary.BigEndian.AppendUint32(user, uint32(s.generation))
		b = binary.BigEndian.AppendUint32(b, uint32(len(user)))
		b = append(b, user...)
	} else {
		b = binary.BigEndian.AppendUint32(b, ^uint32(0))
	}
	return appendPartitions(b, s.owned)
}

func decodeSubscription(b []byte, name Assignor) (s subscription, err error) {
	d := protoReader{b: b}
	version := d.int16()
	s.topics = d.strings()
	user := d.bytes()
	if version >= 1 && len(d.b) > 0 && !d.bad {
		s.owned = d.partitions()
	}
	s.generation = -1
	if name == Sticky && len(user) > 0 {
		u := protoReader{b: user}
		owned := u.partitions()
		generation := int32(-1)
		if len(u.b) >= 4 {
			generation = u.int32()
		}
		if !u.bad {
			s.owned, s.generation = owned, generation
		}
	}
	if d.bad {
		return s, errProtocol
	}
	return s, nil
}

func encodeAssignment(a map[string][]int32) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0)
	b = appendPartitions(b, a)
	return binary.BigEndian.AppendUint32(b, ^uint32(0))
}

// decodeAssignment reads what a member got. No bytes at all are no partitions.
func decodeAssignment(b []byte) (map[string][]int32, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d := protoReader{b: b}
	d.int16()
	a := d.partitions()
	if d.bad {
		return nil, errProtocol
	}
	return a, nil
}

func appendArray(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendPartitions(b []byte, m map[string][]int32) []byte {
	b = appendArray(b, len(m))
	for _, t := range slices.Sorted(maps.Keys(m)) {
		b = appendString(b, t)
		b = appendArray(b, len(m[t]))
		for _, p := range m[t] {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
	}
	return b
}

// protoReader reads what other programs wrote: after the first mistake all is zero and bad is set.
type protoReader struct {
	b   []byte
	bad bool
}

func (d *protoReader) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *protoReader) int16() int16 {
	if v := d.take(2); v != nil {
		return int16(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (d *protoReader) int32() int32 {
	if v := d.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

func (d *protoReader) string() string { return string(d.take(int(d.int16()))) }

func (d *protoReader) bytes() []byte {
	n := d.int32()
	if n < 0 {
		return nil
	}
	return d.take(int(n))
}

func (d *protoReader) strings() []string {
	var ss []string
	for n := d.int32(); n > 0 && !d.bad; n-- {
		ss = append(ss, d.string())
	}
	return ss
}

func (d *protoReader) partitions() map[string][]int32 {
	m := map[string][]int32{}
	for n := d.int32(); n > 0 && !d.bad; n-- {
		t := d.string()
		for k := d.int32(); k > 0 && !d.bad; k-- {
			m[t] = append(m[t], d.int32())
		}
	}
	return m
}
