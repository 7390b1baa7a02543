package adaptertest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stagebus/stagebus"
)

var refuseCases = []Case{
	{Name: "refuse/invalid", Proves: "an illegal name, attribute or header is ErrInvalid, its neighbours ErrNotSent, and the producer goes on", run: refuseInvalidCase},
	{Name: "refuse/headers-too-large", Proves: "200 KB of headers are ErrTooLarge before they leave, and the producer goes on", run: refuseHeadersCase},
	{Name: "refuse/too-large", Proves: "a message over BrokerOptions.MaxMessage is ErrTooLarge, one at the limit passes", run: refuseTooLargeCase},
	{Name: "refuse/broker-limit", Proves: "Capabilities.MaxMessage is true: that size passes, a byte more is ErrTooLarge",
		Needs: func(c stagebus.Capabilities) bool { return c.MaxMessage > 0 }, run: refuseBrokerLimitCase, refused: unlimitedCase},
	{Name: "refuse/names", Proves: "illegal topics and groups are ErrInvalid everywhere", run: refuseNamesCase},
	{Name: "refuse/options", Proves: "options that contradict each other are ErrInvalid", run: refuseOptionsCase},
}

// refuses sends bad between two good messages, wants it refused with kind, and sees that nothing was sent and the producer works.
func (e *env) refuses(p stagebus.Producer, c stagebus.Consumer, topic, what string, bad stagebus.Message, kind error) {
	e.Helper()
	good := stagebus.Message{Topic: topic, Body: []byte("a neighbour")}
	err := p.Submit(e.ctx(), []stagebus.Message{good, bad, good}, func([]stagebus.Outcome) {
		e.Errorf("%s: done was called for a refused Submit", what)
	})
	e.wantBatch(err, what, stagebus.ErrNotSent, kind, stagebus.ErrNotSent)
	e.nothingBefore(p, c, topic, what+": refused, so nothing was sent")
}

func refuseInvalidCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	header := func(k string) func(*stagebus.Message) {
		return func(m *stagebus.Message) { m.Headers = stagebus.Headers{{Key: k, Value: "v"}} }
	}
	bad := map[string]func(*stagebus.Message){
		"a header name of 300 bytes": header(strings.Repeat("n", 300)),
		"a header name of 256 bytes": header(strings.Repeat("n", 256)),
		"an empty header name":       header(""),
		"a header name of no UTF-8":  header("\xff"),
		"no topic":                   func(m *stagebus.Message) { m.Topic = "" },
		"an illegal topic":           func(m *stagebus.Message) { m.Topic = "a b" },
		"a topic that isn't derived": func(m *stagebus.Message) { m.Topic = "a--b" },
		"a topic of 250 bytes":       func(m *stagebus.Message) { m.Topic = strings.Repeat("t", 250) },
		"a negative partition":       func(m *stagebus.Message) { m.Partition = -1 },
	}
	for _, k := range []string{"ce_id", "CE_ID", "ce_specversion", "cloudEvents_type", "cloudEvents:source", "content-type", "Content-Type",
		"content-encoding", "stagebus-attempt", "stagebus-nil", "stagebus-order", "stagebus-due"} {
		bad["the reserved header "+k] = header(k)
	}
	for i, a := range attributes(&stagebus.Message{})[1:] {
		for what, v := range map[string]string{"of 256 bytes": strings.Repeat("a", 256), "of no UTF-8": "\xff", "with a control character": "a\nb"} {
			bad[a.Key+" "+what] = func(m *stagebus.Message) { *field(m, i) = v }
		}
	}
	for what, change := range bad {
		m := stagebus.Message{Topic: topic, Body: []byte("bad")}
		change(&m)
		e.refuses(p, c, topic, what, m, stagebus.ErrInvalid)
	}
}

func refuseHeadersCase(e *env) {
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	m := stagebus.Message{Topic: topic, Headers: stagebus.Headers{{Key: "large", Value: strings.Repeat("v", 200_000)}}}
	e.refuses(p, c, topic, "one header of 200 KB", m, stagebus.ErrTooLarge)
	m.Headers = nil
	for i := range 200 {
		m.Headers = append(m.Headers, stagebus.Header{Key: fmt.Sprint(i), Value: strings.Repeat("v", 1000)})
	}
	e.refuses(p, c, topic, "200 headers of 1 KB", m, stagebus.ErrTooLarge)
	m.Headers = nil
	for range 1025 {
		m.Headers = append(m.Headers, stagebus.Header{Key: "h", Value: "v"})
	}
	e.refuses(p, c, topic, "1,025 headers", m, stagebus.ErrTooLarge)
	e.refuses(p, c, topic, "a key of 200 KB", stagebus.Message{Topic: topic, Key: make([]byte, 200_000)}, stagebus.ErrTooLarge)
}

func refuseTooLargeCase(e *env) {
	const limit = 10_000
	b := e.open(stagebus.BrokerOptions{MaxMessage: limit}) // without a stack: the limit is for messages as they leave
	topic := e.topic()
	p := e.producerOf(b, stagebus.ProducerOptions{})
	c := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}})
	key, header := []byte("key"), stagebus.Header{Key: "name", Value: "value"}
	rest := len(key) + len(header.Key) + len(header.Value)
	m := stagebus.Message{Topic: topic, Key: key, Headers: stagebus.Headers{header}, Body: make([]byte, limit-rest+1)}
	e.refuses(p, c, topic, "a byte over the limit", m, stagebus.ErrTooLarge)
	m.Body = m.Body[1:]
	e.send(p, m)
	if d := e.receive(c, 1)[0]; d.Size() != limit {
		e.Errorf("a message of %d bytes arrived as one of %d", limit, d.Size())
	}
}

func refuseBrokerLimitCase(e *env) {
	b := e.open(stagebus.BrokerOptions{})
	topic := e.topic()
	p := e.producerOf(b, stagebus.ProducerOptions{})
	c := e.consumerOf(b, stagebus.ConsumerOptions{Topics: []string{topic}})
	limit := e.caps.MaxMessage
	if limit > 256<<20 {
		e.Logf("a limit of %d bytes is too large to be tried here", limit)
		return
	}
	body := make([]byte, limit+1)
	e.refuses(p, c, topic, "a byte over the broker's limit", stagebus.Message{Topic: topic, Body: body}, stagebus.ErrTooLarge)
	if limit > 16<<20 {
		e.Logf("a message at the limit of %d bytes is not sent, to spare the broker", limit)
		return
	}
	e.send(p, stagebus.Message{Topic: topic, Body: body[:limit]})
	if d := e.receive(c, 1)[0]; len(d.Body) != limit {
		e.Errorf("a body of %d bytes arrived as one of %d", limit, len(d.Body))
	}
}

// unlimitedCase is for a broker that claims to have no limit: 8 MiB pass.
func unlimitedCase(e *env) {
	e.roundTrip(stagebus.Message{Body: make([]byte, 8<<20)})
}

func refuseNamesCase(e *env) {
	ctx := e.ctx()
	for _, name := range []string{"", "a b", "a/b", "-a", "a-", ".a", "a.", "a..b", "a--b", "ä", "a\x00", strings.Repeat("n", 250)} {
		what := fmt.Sprintf("topic %.20q", name)
		e.want(e.b.Admin().Declare(ctx, stagebus.TopicSpec{Name: name}), "declare "+what, stagebus.ErrInvalid)
		_, err := e.b.Admin().Describe(ctx, name)
		e.want(err, "describe "+what, stagebus.ErrInvalid)
		e.want(e.b.Admin().Delete(ctx, name), "delete "+what, stagebus.ErrInvalid)
		e.want(e.b.Admin().Purge(ctx, name, ""), "purge "+what, stagebus.ErrInvalid)
		_, err = e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{name}})
		e.want(err, "consume "+what, stagebus.ErrInvalid)
		if name != "" { // an empty group is the default one
			_, err = e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{"a"}, Group: name})
			e.want(err, "consume as group "+what, stagebus.ErrInvalid)
			e.want(e.b.Admin().Purge(ctx, "a", name), "purge for group "+what, stagebus.ErrInvalid)
		}
	}
}

func refuseOptionsCase(e *env) {
	topic := e.topic()
	for what, o := range map[string]stagebus.ConsumerOptions{
		"no topic":                      {},
		"a topic twice":                 {Topics: []string{topic, topic}},
		"an unknown mode":               {Topics: []string{topic}, Mode: 9},
		"an Ephemeral with a group":     {Topics: []string{topic}, Mode: stagebus.Ephemeral, Group: "g"},
		"an Assigned with a group":      {Topics: []string{topic}, Mode: stagebus.Assigned, Group: "g"},
		"partitions of a shared one":    {Topics: []string{topic}, Partitions: []int32{0}},
		"a negative prefetch":           {Topics: []string{topic}, Prefetch: -1},
		"an unknown kind of start":      {Topics: []string{topic}, Start: stagebus.Start{Kind: 99}},
		"a negative offset to start at": {Topics: []string{topic}, Start: stagebus.Start{Kind: stagebus.StartOffset, Offset: -1}},
	} {
		_, err := e.b.Consumer(e.ctx(), o)
		if !errors.Is(err, stagebus.ErrInvalid) {
			e.Errorf("a consumer with %s: got %v, want ErrInvalid", what, err)
		}
	}
	if _, err := e.b.Producer(e.ctx(), stagebus.ProducerOptions{Window: -1}); !errors.Is(err, stagebus.ErrInvalid) {
		e.Errorf("a producer with a negative window: got %v, want ErrInvalid", err)
	}
	// What another broker's adapter calls native is no option of this one.
	type alien struct{}
	if _, err := e.b.Producer(e.ctx(), stagebus.ProducerOptions{Native: alien{}}); !errors.Is(err, stagebus.ErrInvalid) {
		e.Errorf("a producer with another adapter's native options: got %v, want ErrInvalid", err)
	}
	if _, err := e.b.Consumer(e.ctx(), stagebus.ConsumerOptions{Topics: []string{topic}, Native: alien{}}); !errors.Is(err, stagebus.ErrInvalid) {
		e.Errorf("a consumer with another adapter's native options: got %v, want ErrInvalid", err)
	}
}
