package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// appender appends one batch to a partition. The producer never has two batches of one partition under way.
type appender interface {
	// append returns the offset of the first record, or what an error asks for.
	append(ctx context.Context, topic string, partition int32, batch []byte) (base int64, a answer, err error)
}

// leaderAppender asks the partition's leader.
type leaderAppender struct {
	c    *client
	d    *directory
	acks int16
}

const (
	acksAll    = -1
	acksLeader = 1
)

func (l *leaderAppender) append(ctx context.Context, topic string, partition int32, batch []byte) (int64, answer, error) {
	node, ok := l.d.leader(topic, partition)
	if !ok {
		if _, err := l.d.refresh(ctx, topic); err != nil {
			if isSASL(err) {
				return -1, final, err
			}
			return -1, retriable, err // what was lost was the question for the leader: the batch hasn't left
		}
		if node, ok = l.d.leader(topic, partition); !ok {
			return -1, retriable, l.noLeader(topic)
		}
	}
	framed := make([]byte, 4, 4+len(batch))
	binary.BigEndian.PutUint32(framed, uint32(len(batch)))
	framed = append(framed, batch...)
	m, err := l.c.ask(ctx, node, &rawproduce.Request{
		Acks:    l.acks,
		Timeout: int32(time.Until(deadlineOf(ctx, l.c.timeout)).Milliseconds()),
		Topics: []rawproduce.RequestTopic{{Topic: topic, Partitions: []rawproduce.RequestPartition{{
			Partition: partition, RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(framed)},
		}}}},
	})
	if err != nil {
		// Whatever happened to the connection, the leader may have moved with it.
		l.forget(topic, partition)
		return -1, l.network(err), err
	}
	for _, t := range m.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			if t.Topic != topic || p.Partition != partition {
				continue
			}
			code := kgo.Error(p.ErrorCode)
			if code == 0 {
				return p.BaseOffset, final, nil
			}
			l.forget(topic, partition)
			var err error = code
			if p.ErrorMessage != "" {
				err = fmt.Errorf("%w: %s", code, p.ErrorMessage)
			}
			return -1, classifyProduce(code, p.BaseOffset, p.LogStartOffset), err
		}
	}
	return -1, uncertain, errors.New("the broker's answer doesn't name the partition")
}

// network says what a request that got no answer asks for.
func (l *leaderAppender) network(err error) answer {
	switch {
	case maySent(err):
		return uncertain
	case isSASL(err):
		return final
	}
	return retriable
}

// noLeader tells a topic that vanished from a partition between two leaders.
func (l *leaderAppender) noLeader(topic string) error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if t := l.d.topics[topic]; t != nil && t.err != 0 {
		return t.err
	}
	return kgo.LeaderNotAvailable
}

func (l *leaderAppender) forget(topic string, partition int32) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if t := l.d.topics[topic]; t != nil && int(partition) < len(t.leaders) {
		n := *t
		n.leaders = append([]int32(nil), t.leaders...)
		n.leaders[partition] = -1
		l.d.topics[topic] = &n
	}
}

func deadlineOf(ctx context.Context, otherwise time.Duration) time.Time {
	if t, ok := ctx.Deadline(); ok {
		return t
	}
	return time.Now().Add(otherwise)
}

func isSASL(err error) bool {
	return errors.Is(err, kgo.SASLAuthenticationFailed) || errors.Is(err, kgo.UnsupportedSASLMechanism) || errors.Is(err, kgo.IllegalSASLState)
}
