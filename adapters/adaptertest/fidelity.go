package adaptertest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

var fidelityCases = []Case{
	{Name: "fidelity/body", Proves: "bodies arrive byte for byte, whatever the bytes are", run: bodyCase},
	{Name: "fidelity/nil-body", Proves: "a nil body stays nil and an empty one empty", run: nilBodyCase},
	{Name: "fidelity/large-body", Proves: "bodies up to 1 MiB, or the broker's limit, arrive whole", run: largeBodyCase},
	{Name: "fidelity/key", Proves: "keys arrive byte for byte; no key and an empty key differ", run: keyCase},
	{Name: "fidelity/time", Proves: "Time arrives to the nanosecond beside another attribute, to a second in a bare message", run: timeCase},
	{Name: "fidelity/attributes", Proves: "every attribute arrives as it was, alone and with the others, and none appears", run: attributesCase},
	{Name: "fidelity/bare", Proves: "a message of body, key or headers only gets no attribute and no header on the way", run: bareCase},
	{Name: "fidelity/priority-deadline", Proves: "Priority and Deadline arrive", run: priorityDeadlineCase},
	{Name: "fidelity/kept", Proves: "a received message keeps its bytes for as long as it is held", run: keptCase},
	{Name: "fidelity/sender-buffer", Proves: "a sender may overwrite its bytes once done has run", run: senderBufferCase},
	{Name: "fidelity/topics", Proves: "two topics don't mix, also under one consumer", run: topicsCase},
}

// roundTrip sends ms to one topic and compares what arrives with what was sent, in order.
func (e *env) roundTrip(ms ...stagebus.Message) []stagebus.Delivery {
	e.Helper()
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	for i := range ms {
		ms[i].Topic = topic
		e.send(p, ms[i]) // one by one: an order among different keys is not promised
	}
	ds := e.receive(c, len(ms))
	for i := range ms {
		if d := diff(&ms[i], &ds[i].Message); d != "" {
			e.Errorf("message %d of %d: %s", i+1, len(ms), d)
		}
		if ds[i].Attempt > 1 || ds[i].Redelivered {
			e.Errorf("message %d of %d: a first delivery is marked as attempt %d, redelivered %v", i+1, len(ms), ds[i].Attempt, ds[i].Redelivered)
		}
	}
	e.settle(c, stagebus.Done, ds...)
	e.nothingBefore(p, c, topic, "each message was received once")
	return ds
}

// allBytes is every value of a byte, forwards and backwards: no valid UTF-8, and CR, LF, NUL among it.
func allBytes() []byte {
	b := make([]byte, 0, 512)
	for i := range 256 {
		b = append(b, byte(i))
	}
	for i := range 256 {
		b = append(b, byte(255-i))
	}
	return b
}

// randomBytes returns n bytes, the same each time, with no beginning in common with those of another n.
func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

func bodyCase(e *env) {
	var ms []stagebus.Message
	for _, b := range [][]byte{
		[]byte(`{"id": 1, "text": "Hello World", "timestamp": 1625512731}`),
		allBytes(), randomBytes(1000), {0}, {0xff}, {0xc3, 0x28}, []byte("\r\n"), []byte(" \t padded \n"), []byte("null"),
		[]byte("\xef\xbb\xbfmark"), []byte("日本語 🚌"), bytes.Repeat([]byte{0}, 300),
	} {
		ms = append(ms, stagebus.Message{Body: b})
	}
	e.roundTrip(ms...)
}

func nilBodyCase(e *env) {
	e.roundTrip(
		stagebus.Message{Body: nil},
		stagebus.Message{Body: []byte{}},
		stagebus.Message{Body: nil, Key: []byte("k"), ID: "1", Headers: stagebus.Headers{{Key: "h", Value: "v"}}},
		stagebus.Message{Body: []byte{}, Key: []byte("k"), ID: "2", Headers: stagebus.Headers{{Key: "h", Value: "v"}}},
	)
}

// room is what the suite leaves below a limit for what its own stack adds to a message.
const room = 4096

func largeBodyCase(e *env) {
	largest := 1 << 20
	if limit := e.caps.MaxMessage; limit > 0 && limit < largest+room {
		largest = limit - room
		e.Logf("the largest body is of %d bytes, for the broker's limit of %d", largest, limit)
	}
	var ms []stagebus.Message
	for _, n := range []int{4095, 4096, 1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 17, largest} {
		if n <= largest {
			ms = append(ms, stagebus.Message{Body: randomBytes(n)})
		}
	}
	e.roundTrip(ms...)
}

func keyCase(e *env) {
	var ms []stagebus.Message
	for _, k := range [][]byte{nil, {}, []byte("key"), allBytes(), {0}, []byte(" a b "), []byte("ключ"), randomBytes(4096)} {
		ms = append(ms, stagebus.Message{Key: k, Body: []byte("body")}, stagebus.Message{Key: k, Body: []byte("body"), ID: "1"})
	}
	e.roundTrip(ms...)
}

func timeCase(e *env) {
	at := time.Now().Add(-time.Hour).Truncate(time.Second).Add(123456789)
	var ms []stagebus.Message
	for _, t := range []time.Time{at, at.Truncate(time.Second), at.In(time.FixedZone("", 5*3600+1800)), at.Add(999*time.Millisecond - 123456789)} {
		ms = append(ms, stagebus.Message{Time: t, ID: "1", Body: []byte("stamped")}, stagebus.Message{Time: t, Body: []byte("bare")})
	}
	e.roundTrip(ms...)
}

func attributesCase(e *env) {
	long := strings.Repeat("é", 127)
	all := stagebus.Message{
		Key: []byte("key"), Body: []byte(`{"a":1}`), Time: time.Now().Add(-time.Minute),
		ID: "01890a5d-ac96-774b-bcce-b302099a8057", Source: "/stages/infer", Type: "io.example.tokens.v1", Subject: "cache/42",
		ContentType: `application/json; charset="utf-8"`, ContentEncoding: "zstd, aes256gcm", CorrelationID: "c-1", ReplyTo: "replies.a",
		Audience: "tokens", Headers: stagebus.Headers{{Key: "x-own", Value: "1"}, {Key: "id", Value: "of the application"}},
	}
	odd := stagebus.Message{
		Body: []byte("odd"), Time: time.Now(), ID: long, Source: " spaces ", Type: "тип", Subject: `q"u'o\te%20,;=`, ContentType: "x",
		ContentEncoding: "identity", CorrelationID: "日本", ReplyTo: long, Audience: "🚌",
	}
	ms := []stagebus.Message{all, odd}
	for i := range attributes(&all)[1:] {
		m := stagebus.Message{Body: []byte("one")}
		*field(&m, i) = "value"
		ms = append(ms, m)
	}
	e.roundTrip(ms...)
}

// field returns the attribute that is i-th in the list of attributes, the topic not counted.
func field(m *stagebus.Message, i int) *string {
	return []*string{&m.ID, &m.Source, &m.Type, &m.Subject, &m.ContentType, &m.ContentEncoding, &m.CorrelationID, &m.ReplyTo, &m.Audience}[i]
}

func bareCase(e *env) {
	e.roundTrip(
		stagebus.Message{Body: []byte("body")},
		stagebus.Message{Body: []byte("body"), Key: []byte("key")},
		stagebus.Message{Body: []byte("body"), Headers: stagebus.Headers{{Key: "own", Value: "1"}}},
	)
}

func priorityDeadlineCase(e *env) {
	deadline := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	e.roundTrip(
		stagebus.Message{Body: []byte("p"), Priority: 7},
		stagebus.Message{Body: []byte("p"), Priority: 255, ID: "1"},
		stagebus.Message{Body: []byte("d"), Deadline: deadline},
		stagebus.Message{Body: []byte("d"), Deadline: deadline.Add(time.Minute), Priority: 1, ID: "1", Time: time.Now()},
	)
}

func keptCase(e *env) {
	const n = 300
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	want := make([]stagebus.Message, n)
	for i := range want {
		want[i] = stagebus.Message{Topic: topic, Key: []byte("one"), Body: randomBytes(100 + i), ID: fmt.Sprint(i), Headers: stagebus.Headers{{Key: "h", Value: fmt.Sprint(i)}}}
	}
	var held []stagebus.Delivery
	for i := 0; i < n; i += 50 { // later batches must not be written over earlier ones
		e.send(p, want[i:i+50]...)
		ds := e.receive(c, 50)
		e.settle(c, stagebus.Done, ds...)
		held = append(held, ds...)
	}
	e.flush(c)
	for i := range want {
		if d := diff(&want[i], &held[i].Message); d != "" {
			e.Fatalf("message %d, held until %d were received: %s", i+1, n, d)
		}
	}
}

func senderBufferCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	m := stagebus.Message{Topic: topic, Key: []byte("key"), Body: []byte("body"), Headers: stagebus.Headers{{Key: "h", Value: "v"}}}
	want := m.Clone()
	e.send(p, m)
	copy(m.Key, "XXX")
	copy(m.Body, "XXXX")
	m.Headers[0] = stagebus.Header{Key: "X", Value: "X"}
	d := e.receive(c, 1)[0]
	if s := diff(&want, &d.Message); s != "" {
		e.Errorf("overwritten after done had run: %s", s)
	}
	e.settle(c, stagebus.Done, d)
}

func topicsCase(e *env) {
	a, b := e.topic(), e.topic()
	p, ca := e.producer(), e.consumer(a, "")
	both := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{a, b}, Group: e.group("both")})
	e.sendTexts(p, a, "a0", "a1")
	e.sendTexts(p, b, "b0", "b1")
	if got := e.take(ca, 2); !equalSets(got, []string{"a0", "a1"}) {
		e.Errorf("a consumer of one topic got %q", got)
	}
	e.nothingBefore(p, ca, a, "the messages of another topic are not for this consumer")
	ds := e.receive(both, 5) // with the marker
	for i := range ds {
		if own := map[bool]string{true: b, false: a}[strings.HasPrefix(string(ds[i].Body), "b")]; ds[i].Topic != own {
			e.Errorf("%s: not the topic that it was sent to, %q", describe(&ds[i]), own)
		}
	}
	e.settle(both, stagebus.Done, ds...)
}
