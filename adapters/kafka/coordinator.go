package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"

	"github.com/stagebus/stagebus"
)

// coordinator sends requests to the broker that coordinates a group, and finds it again when it has moved. Safe for
// concurrent use.
type coordinator struct {
	c     *client
	group string
	mu    sync.Mutex
	node  int32 // anyNode: not known
}

func newCoordinator(c *client, group string) *coordinator {
	return &coordinator{c: c, group: group, node: anyNode}
}

func (k *coordinator) find(ctx context.Context) (int32, error) {
	k.mu.Lock()
	node := k.node
	k.mu.Unlock()
	if node != anyNode {
		return node, nil
	}
	m, err := k.c.ask(ctx, anyNode, &findcoordinator.Request{Key: k.group})
	if err != nil {
		return 0, err
	}
	r := m.(*findcoordinator.Response)
	if code := kgo.Error(r.ErrorCode); code != 0 {
		return 0, code
	}
	k.mu.Lock()
	k.node = r.NodeID
	k.mu.Unlock()
	return r.NodeID, nil
}

func (k *coordinator) lose() {
	k.mu.Lock()
	k.node = anyNode
	k.mu.Unlock()
}

// ask sends a request once. code takes the answer's error out of it: one that means another coordinator, or none yet, makes
// the next request look for it.
func (k *coordinator) ask(ctx context.Context, req protocol.Message, code func(protocol.Message) kgo.Error) (protocol.Message, error) {
	return k.askRaw(ctx, req, nil, code)
}

func (k *coordinator) askRaw(ctx context.Context, req protocol.Message, read func(int16, io.Reader, int) (protocol.Message, error), code func(protocol.Message) kgo.Error) (protocol.Message, error) {
	node, err := k.find(ctx)
	if err != nil {
		return nil, err
	}
	m, err := k.c.askRaw(ctx, node, req, read)
	if err != nil {
		k.lose()
		return nil, err
	}
	if e := code(m); e != 0 {
		if groupRetriable(e) {
			k.lose()
		}
		return nil, e
	}
	return m, nil
}

// transient says that a request to the coordinator may work in a moment.
func transient(err error) bool {
	var code kgo.Error
	if errors.As(err, &code) {
		return groupRetriable(code)
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, stagebus.ErrClosed)
}

// retry calls f until it works, fails for good, or ctx ends. The wait is short: a group that is new on a broker, and everyone who
// starts with it, waits for just that.
func retry(ctx context.Context, f func() error) error {
	b := backoff{min: 25 * time.Millisecond, max: 250 * time.Millisecond}
	for {
		err := f()
		if err == nil || !transient(err) {
			return err
		}
		if e := b.wait(ctx); e != nil {
			return errors.Join(err, e)
		}
	}
}

// identity is who commits: the zero member of generation -1 is an administrator, who may when the group is empty.
type identity struct {
	generation       int32
	member, instance string
}

// commit makes offsets known. Errors are a kgo.Error or the network's.
func (k *coordinator) commit(ctx context.Context, who identity, offsets map[place]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	req := &offsetcommit.Request{GroupID: k.group, GenerationID: who.generation, MemberID: who.member, GroupInstanceID: who.instance, RetentionTimeMs: -1}
	index := map[string]int{}
	for p, o := range offsets {
		i, ok := index[p.topic]
		if !ok {
			i = len(req.Topics)
			index[p.topic] = i
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: p.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions,
			offsetcommit.RequestPartition{PartitionIndex: p.partition, CommittedOffset: o, CommittedLeaderEpoch: -1})
	}
	_, err := k.ask(ctx, req, func(m protocol.Message) kgo.Error {
		var worst kgo.Error
		for _, t := range m.(*offsetcommit.Response).Topics {
			for _, p := range t.Partitions {
				code := kgo.Error(p.ErrorCode)
				// A topic that was deleted must not hold up the others.
				if code != 0 && code != kgo.UnknownTopicOrPartition && (worst == 0 || !lost(worst)) {
					worst = code
				}
			}
		}
		return worst
	})
	return err
}

// committed returns the group's offsets of those partitions that have one.
func (k *coordinator) committed(ctx context.Context, at []place) (map[place]int64, error) {
	req := &offsetfetch.Request{GroupID: k.group, Topics: []offsetfetch.RequestTopic{}}
	index := map[string]int{}
	for _, p := range at {
		i, ok := index[p.topic]
		if !ok {
			i = len(req.Topics)
			index[p.topic] = i
			req.Topics = append(req.Topics, offsetfetch.RequestTopic{Name: p.topic})
		}
		req.Topics[i].PartitionIndexes = append(req.Topics[i].PartitionIndexes, p.partition)
	}
	m, err := k.ask(ctx, req, func(m protocol.Message) kgo.Error {
		r := m.(*offsetfetch.Response)
		if r.ErrorCode != 0 {
			return kgo.Error(r.ErrorCode)
		}
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				if code := kgo.Error(p.ErrorCode); code != 0 && code != kgo.UnknownTopicOrPartition {
					return code
				}
			}
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	found := map[place]int64{}
	for _, t := range m.(*offsetfetch.Response).Topics {
		for _, p := range t.Partitions {
			if p.CommittedOffset >= 0 && p.ErrorCode == 0 {
				found[place{t.Name, p.PartitionIndex}] = p.CommittedOffset
			}
		}
	}
	return found, nil
}

// heartbeat says that the member lives. Its answer is read here: kafka-go takes the throttle time for the error code.
func (k *coordinator) heartbeat(ctx context.Context, who identity) error {
	req := &heartbeat.Request{GroupID: k.group, GenerationID: who.generation, MemberID: who.member, GroupInstanceID: who.instance}
	_, err := k.askRaw(ctx, req, func(version int16, r io.Reader, n int) (protocol.Message, error) {
		want := 2
		if version >= 1 {
			want = 6
		}
		if n < want {
			return nil, fmt.Errorf("an answer of %d bytes to a heartbeat", n)
		}
		b := make([]byte, want)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		_, err := io.CopyN(io.Discard, r, int64(n-want))
		return &heartbeat.Response{ErrorCode: int16(binary.BigEndian.Uint16(b[want-2:]))}, err
	}, func(m protocol.Message) kgo.Error { return kgo.Error(m.(*heartbeat.Response).ErrorCode) })
	return err
}
