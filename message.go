package stagebus

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Message is what stages exchange. It is passed by value and in slices; the zero value but for Topic is a valid, empty message.
//
// The bytes that Key, Body and the strings point at belong to the garbage collector: no part of stagebus pools or reuses
// them. A received message is read-only, and messages of one received batch may share memory: [Message.Clone] detaches one
// that is kept for long.
type Message struct {
	// Topic is a portable name (see [CheckTopic]), the same on every broker. "queue:NAME" is a RabbitMQ queue as it is and
	// "topic:NAME" a Kafka topic as it is, for names that others chose.
	Topic string

	// Partition is zero for the usual choice (by Key, or any partition when Key is nil); [At] pins one.
	Partition Partition

	// Key orders: messages of one topic with equal keys keep their order. Nil is no key; an empty key is a key.
	Key []byte

	// Body is the payload. Nil (a tombstone on a compacted topic) and empty differ, and stay different on every broker.
	Body []byte

	// Headers are the application's own, see [Headers].
	Headers Headers

	// Time is when the message was made. Zero lets the broker choose or leaves it out. Brokers keep milliseconds (Kafka)
	// or seconds (RabbitMQ) natively; the full value travels as an attribute once any other attribute is set.
	Time time.Time

	// The attributes, each at most 255 bytes of UTF-8. They are those of CloudEvents 1.0 and travel in headers, under
	// names that other programs know; an empty one isn't written, and a message without any is bare: body, key and
	// headers only, as pika or kafka-python would send it.
	ID              string // unique with Source; a resend keeps it, see [Stamp]
	Source          string // who made it
	Type            string // what it means, such as "io.example.tokens.v1"
	Subject         string
	ContentType     string // media type of the decoded Body
	ContentEncoding string // what was done to Body, in the order applied, such as "zstd, aes256gcm"
	CorrelationID   string
	ReplyTo         string
	// Audience is the logical destination that encryption and signatures bind. It survives retry, dead letter and
	// mirroring, where Topic does not.
	Audience string

	// Deadline is when the message loses its use. RabbitMQ drops (or dead-letters) it then; Kafka and memory deliver it
	// all the same, for the receiver to decide.
	Deadline time.Time

	// Priority is honoured by RabbitMQ queues made for it and advisory elsewhere. From RabbitMQ 4.0 on every quorum queue is:
	// a message with a higher one goes ahead, also of earlier messages of its key.
	Priority uint8
}

// Partition names a partition of a topic, shifted by one so that the zero value means "by key".
type Partition int32

// At pins partition n, counted from zero.
func At(n int32) Partition { return Partition(n + 1) }

// Pinned returns the partition that p pins, or false for the usual choice.
func (p Partition) Pinned() (n int32, ok bool) { return int32(p) - 1, p != 0 }

// Clone returns a copy that shares no bytes with m.
func (m *Message) Clone() Message {
	c := *m
	c.Key, c.Body = bytes.Clone(m.Key), bytes.Clone(m.Body)
	c.Headers = make(Headers, len(m.Headers))
	for i, h := range m.Headers {
		c.Headers[i] = Header{strings.Clone(h.Key), strings.Clone(h.Value)}
	}
	if m.Headers == nil {
		c.Headers = nil
	}
	for _, s := range []*string{&c.Topic, &c.ID, &c.Source, &c.Type, &c.Subject, &c.ContentType, &c.ContentEncoding, &c.CorrelationID, &c.ReplyTo, &c.Audience} {
		*s = strings.Clone(*s)
	}
	return c
}

// Size is the number of bytes that m counts for in windows and budgets: key, body, headers and attributes, without the
// broker's own framing.
func (m *Message) Size() int { return len(m.Body) + m.headerSize() }

func (m *Message) headerSize() int {
	n := len(m.Key) + len(m.ID) + len(m.Source) + len(m.Type) + len(m.Subject) + len(m.ContentType) +
		len(m.ContentEncoding) + len(m.CorrelationID) + len(m.ReplyTo) + len(m.Audience)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// Header is one name and value. Values are binary safe; names are UTF-8, 1 to 255 bytes.
type Header struct{ Key, Value string }

// Headers are ordered and keep duplicates. Names are compared exactly. Names that carry attributes on the wire (ce_id,
// cloudEvents_type, content-type, stagebus-attempt…) are reserved and refused when sent; other ce_ names are CloudEvents
// extensions and get the spelling of each broker.
type Headers []Header

// Get returns the first value of key, and whether there is one.
func (h Headers) Get(key string) (string, bool) {
	for i := range h {
		if h[i].Key == key {
			return h[i].Value, true
		}
	}
	return "", false
}

// Set returns h with one header of that key: the first keeps its place, others go. It may write to h's array, which must
// not be that of a received message that is still in use.
func (h Headers) Set(key, value string) Headers {
	i := slices.IndexFunc(h, func(x Header) bool { return x.Key == key })
	if i < 0 {
		return append(h, Header{key, value})
	}
	h[i].Value = value
	return append(h[:i+1], h[i+1:].Del(key)...)
}

// Del returns h without the headers of that key, in h's array.
func (h Headers) Del(key string) Headers {
	return slices.DeleteFunc(h, func(x Header) bool { return x.Key == key })
}

// Stamp fills an empty ID (a UUID of version 7, RFC 9562) and a zero Time in place. Call it before sending, so that a
// resend after [ErrUncertain] keeps its identity and the receiver can tell the copies.
func Stamp(ms []Message) {
	now := time.Now()
	for i := range ms {
		if ms[i].Time.IsZero() {
			ms[i].Time = now
		}
		if ms[i].ID == "" {
			ms[i].ID = newID(now)
		}
	}
}

func newID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails: crypto/rand ends the program rather than return an error
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(b[:6], ms[2:])
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[:8], b[:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
