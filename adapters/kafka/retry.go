package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go/protocol/describeconfigs"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/deadletter"
	"github.com/stagebus/stagebus/adapters/internal/ladder"
	"github.com/stagebus/stagebus/adapters/internal/murmur2"
	"github.com/stagebus/stagebus/internal/envelope"
)

// headerOrigin is the last header of a copy in a retry topic: partition and offset of the first delivery. The lane takes it
// off again, so that only a dead letter ever shows where its message began.
const headerOrigin = "stagebus-origin"

// ladderSteps are all the delays that exist. Asking the broker about this many names finds a group's retry topics without
// listing the cluster.
var ladderSteps = func() []time.Duration {
	steps := []time.Duration{ladder.Step(0)}
	for {
		last := steps[len(steps)-1]
		next := ladder.Step(last + 1)
		if next == last {
			return steps
		}
		steps = append(steps, next)
	}
}()

func retryTopic(source, group string, d time.Duration) string {
	return stagebus.RetryTopic(source, group) + ladder.Millis(d)
}

// retryTopics are the names that the retry topics of a group can have.
func retryTopics(source, group string) []string {
	names := make([]string, len(ladderSteps))
	for i, d := range ladderSteps {
		names[i] = retryTopic(source, group, d)
	}
	return names
}

// retryCopy is the copy of a delivery that waits in a retry topic, in the partition that the owner of the source partition
// reads. The topic is made when it is missing.
func (c *consumer) retryCopy(ctx context.Context, l *lane, p *pinned, after time.Duration) (record, place, error) {
	step := ladder.Step(after)
	topic := retryTopic(l.source, c.group, step)
	n, err := c.ensure(ctx, topic, l.source, true)
	if err != nil {
		return record{}, place{}, err
	}
	headers := strip(p.headers, func(name string) bool { return name == envelope.HeaderAttempt || name == envelope.HeaderDue })
	meta := envelope.Meta{Attempt: p.attempt + 1, Due: time.Now().Add(step)}
	headers = appendMeta(headers, meta)
	headers = append(headers, header{headerOrigin, fmt.Appendf(nil, "%d/%d", p.origin.Partition, p.origin.Offset)})
	return record{time: p.time, key: p.key, value: p.value, headers: headers}, place{topic, l.origin % int32(n)}, nil
}

// unwrap takes the adapter's own marks off a record of a retry topic.
func (l *lane) unwrap(p *pinned) {
	hs := p.headers
	if n := len(hs); n > 0 && hs[n-1].name == headerOrigin {
		partition, offset, ok := strings.Cut(string(hs[n-1].value), "/")
		part, err1 := strconv.ParseInt(partition, 10, 32)
		off, err2 := strconv.ParseInt(offset, 10, 64)
		if ok && err1 == nil && err2 == nil {
			name, _ := physical(l.source)
			p.origin = stagebus.Position{Topic: name, Partition: int32(part), Offset: off}
		}
		p.headers = hs[:n-1]
	}
	var m stagebus.Message
	meta, _ := envelope.DecodeKafka(&m, len(p.headers), func(i int) (string, []byte) { return p.headers[i].name, p.headers[i].value })
	p.due, p.attempt = meta.Due, meta.Attempt
}

// deadCopy is the copy of a delivery that goes to the dead letters, which are made when they are missing.
func (c *consumer) deadCopy(ctx context.Context, l *lane, p *pinned, reason string) (record, place, error) {
	topic := stagebus.DeadLetterTopic(l.source, c.group)
	n, err := c.ensure(ctx, topic, l.source, false)
	if err != nil {
		return record{}, place{}, err
	}
	letter := deadletter.Letter{
		Reason: reason, Origin: stagebus.Position{Topic: l.source, Partition: p.origin.Partition, Offset: p.origin.Offset}, Group: c.group,
		Attempt: p.attempt, Rejected: time.Now(),
	}
	headers := strip(p.headers, func(name string) bool {
		return name == envelope.HeaderAttempt || name == envelope.HeaderDue || deadletter.Is(name)
	})
	for _, h := range letter.Headers() {
		headers = append(headers, header{h.Key, []byte(h.Value)})
	}
	partition := l.origin % int32(n)
	if p.key != nil {
		partition = murmur2.Partition(p.key, n)
	}
	return record{time: p.time, key: p.key, value: p.value, headers: headers}, place{topic, partition}, nil
}

// ensure returns the number of partitions of a topic of our own, which it makes if need be: with as many partitions as its source, or with the
// broker's default.
func (c *consumer) ensure(ctx context.Context, topic, source string, asSource bool) (int, error) {
	t, err := c.d.topic(ctx, topic, metadataAge)
	if err == nil && t.missing() {
		n := 0
		name, _ := physical(source)
		if asSource {
			st, err := c.d.topic(ctx, name, metadataAge)
			if err != nil {
				return 0, c.client.fail("settle", source, err)
			}
			if n = len(st.leaders); n == 0 {
				return 0, c.client.fail("settle", source, st.err)
			}
		}
		if err := c.d.create(ctx, topic, n, c.roomForCopies(ctx, name)); err != nil {
			return 0, err
		}
		c.rescan()
		t, err = c.d.topic(ctx, topic, metadataAge)
	}
	if err == nil && t.err != 0 {
		err = t.err
	}
	if err == nil && len(t.leaders) == 0 {
		err = errors.New("no partitions")
	}
	if err != nil {
		return 0, c.client.fail("settle", topic, err)
	}
	return len(t.leaders), nil
}

// copyRoom is what the copy of a message may be longer than itself: what a letter adds, above all its reason.
const copyRoom = 64 << 10

// roomForCopies is the configuration of a topic that takes copies of the largest messages of source. Where the broker doesn't tell their limit, its
// default has to do, and only those right at the limit can't be copied.
func (c *consumer) roomForCopies(ctx context.Context, source string) map[string]string {
	const limit = "max.message.bytes"
	const topicResource = 2
	m, err := c.client.ask(ctx, anyNode, &describeconfigs.Request{
		Resources: []describeconfigs.RequestResource{{ResourceType: topicResource, ResourceName: source, ConfigNames: []string{limit}}},
	})
	if err != nil {
		return nil
	}
	for _, r := range m.(*describeconfigs.Response).Resources {
		for _, e := range r.ConfigEntries {
			if n, err := strconv.Atoi(e.ConfigValue); e.ConfigName == limit && err == nil {
				return map[string]string{limit: strconv.Itoa(min(n, math.MaxInt32-copyRoom) + copyRoom)}
			}
		}
	}
	return nil
}

func appendMeta(hs []header, meta envelope.Meta) []header {
	envelope.EncodeKafka(&stagebus.Message{}, meta, func(name, value string) {
		hs = append(hs, header{name, []byte(value)})
	})
	return hs
}

// strip returns a copy of hs without the headers to drop, with room for a letter's.
func strip(hs []header, drop func(name string) bool) []header {
	out := make([]header, 0, len(hs)+8)
	for _, h := range hs {
		if !drop(h.name) {
			out = append(out, h)
		}
	}
	return out
}
