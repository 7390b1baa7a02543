package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/stagebus/stagebus"
)

// topicMeta is what the cluster says of one topic. It doesn't change once made.
type topicMeta struct {
	err     kgo.Error // 0, UnknownTopicOrPartition…
	leaders []int32   // by partition, -1 for none at the moment
	at      time.Time
}

func (t *topicMeta) missing() bool {
	return t.err == kgo.UnknownTopicOrPartition || t.err == kgo.UnknownTopicID
}

// directory knows the topics in use and who leads their partitions. It asks for those topics only, and when told to:
// after an answer that proves it wrong, and from time to time by the consumers. Safe for concurrent use.
type directory struct {
	c  *client
	mu sync.Mutex
	// topics are those asked for and not forgotten.
	topics     map[string]*topicMeta
	controller int32
	brokers    []int32
}

func newDirectory(c *client) *directory {
	return &directory{c: c, topics: map[string]*topicMeta{}, controller: anyNode}
}

// refresh asks a broker about the topics now.
func (d *directory) refresh(ctx context.Context, topics ...string) (map[string]*topicMeta, error) {
	if len(topics) == 0 {
		topics = []string{} // nil would be all
	}
	return d.ask(ctx, topics)
}

// all asks about every topic of the cluster and keeps none of it.
func (d *directory) all(ctx context.Context) (map[string]*topicMeta, error) { return d.ask(ctx, nil) }

func (d *directory) ask(ctx context.Context, topics []string) (map[string]*topicMeta, error) {
	m, err := d.c.ask(ctx, anyNode, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, err
	}
	res := m.(*metadata.Response)
	found := make(map[string]*topicMeta, len(res.Topics))
	now := time.Now()
	for i := range res.Topics {
		t := &res.Topics[i]
		if topics == nil && t.IsInternal {
			continue
		}
		tm := &topicMeta{err: kgo.Error(t.ErrorCode), at: now, leaders: make([]int32, len(t.Partitions))}
		for j := range tm.leaders {
			tm.leaders[j] = -1
		}
		for _, p := range t.Partitions {
			if p.PartitionIndex < 0 || int(p.PartitionIndex) >= len(tm.leaders) {
				continue
			}
			if code := kgo.Error(p.ErrorCode); code == 0 || code == kgo.ReplicaNotAvailable {
				tm.leaders[p.PartitionIndex] = p.LeaderID
			}
		}
		found[t.Name] = tm
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.controller = res.ControllerID
	d.brokers = d.brokers[:0]
	for _, b := range res.Brokers {
		d.brokers = append(d.brokers, b.NodeID)
	}
	if topics != nil {
		maps.Copy(d.topics, found)
	}
	return found, nil
}

// topic returns what is known, or asks if nothing is or it is older than maxAge.
func (d *directory) topic(ctx context.Context, name string, maxAge time.Duration) (*topicMeta, error) {
	d.mu.Lock()
	t := d.topics[name]
	d.mu.Unlock()
	if t != nil && t.err == 0 && time.Since(t.at) < maxAge {
		return t, nil
	}
	found, err := d.refresh(ctx, name)
	if err != nil {
		return nil, err
	}
	if t = found[name]; t == nil {
		return nil, kgo.UnknownTopicOrPartition
	}
	return t, nil
}

// leader returns the broker of a partition by what is known, or false.
func (d *directory) leader(topic string, partition int32) (int32, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.topics[topic]
	if t == nil || int(partition) >= len(t.leaders) || t.leaders[partition] < 0 {
		return 0, false
	}
	return t.leaders[partition], true
}

func (d *directory) nodes() []int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.brokers)
}

// create makes a topic that does not exist and waits until it can be used. One that exists is nil too: compare its
// partitions afterwards. partitions 0 is the broker's default.
func (d *directory) create(ctx context.Context, name string, partitions int, config map[string]string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.c.timeout)
		defer cancel()
	}
	// -1: the broker's defaults (Kafka 2.4 and newer)
	t := createtopics.RequestTopic{Name: name, NumPartitions: -1, ReplicationFactor: -1}
	if partitions > 0 {
		t.NumPartitions = int32(partitions)
	}
	for _, k := range slices.Sorted(maps.Keys(config)) {
		t.Configs = append(t.Configs, createtopics.RequestConfig{Name: k, Value: config[k]})
	}
	created := false
	var last error
	for b := (backoff{min: 20 * time.Millisecond, max: 500 * time.Millisecond}); ; {
		if !created {
			last = d.createOnce(ctx, t)
			created = last == nil || errors.Is(last, kgo.TopicAlreadyExists)
			var code kgo.Error
			if errors.As(last, &code) && !created && code != kgo.NotController && !groupRetriable(code) {
				return d.c.fail("declare", name, last)
			}
		}
		if created {
			m, err := d.refresh(ctx, name)
			if err == nil && m[name] != nil && m[name].err == 0 && !slices.Contains(m[name].leaders, -1) && len(m[name].leaders) > 0 {
				return nil
			}
			last = errors.Join(fmt.Errorf("created, but not all partitions have a leader yet"), err)
		}
		if err := b.wait(ctx); err != nil {
			return d.c.fail("declare", name, errors.Join(err, last))
		}
	}
}

func (d *directory) createOnce(ctx context.Context, t createtopics.RequestTopic) error {
	if _, err := d.refresh(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	node := d.controller
	d.mu.Unlock()
	m, err := d.c.ask(ctx, node, &createtopics.Request{
		Topics:    []createtopics.RequestTopic{t},
		TimeoutMs: int32(min(d.c.timeout, 30*time.Second).Milliseconds()),
	})
	if err != nil {
		return err
	}
	for _, r := range m.(*createtopics.Response).Topics {
		if code := kgo.Error(r.ErrorCode); code != 0 {
			if r.ErrorMessage != "" {
				return fmt.Errorf("%w: %s", code, r.ErrorMessage)
			}
			return code
		}
	}
	return nil
}

// physical is the Kafka topic of a portable name.
func physical(name string) (string, error) {
	if raw, ok := stagebus.RawTopic(name); ok {
		return raw, nil
	}
	if _, queue := stagebus.RawQueue(name); queue {
		return "", &stagebus.InvalidError{Field: "topic", Value: name, Reason: "names a RabbitMQ queue, and this is Kafka"}
	}
	return name, nil
}
