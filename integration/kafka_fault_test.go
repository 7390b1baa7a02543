package integration

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/kafka"
)

// TestKafkaLostMetadataIsNotUncertain: a connection that ends during the look for a partition's new leader says nothing about the message,
// which had been refused: it is sent again.
func TestKafkaLostMetadataIsNotUncertain(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := kafkaOpen(t, kafka.Options{Brokers: c.ListenAddrs()})
	topic := kafkaTopic(t, b, 1)
	p, err := b.Producer(kafkaContext(t), stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: topic}); err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int32
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.ProduceRequest)
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		part := kmsg.NewProduceResponseTopicPartition()
		part.ErrorCode, part.BaseOffset, part.LogStartOffset = kerr.NotLeaderForPartition.Code, -1, -1
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.Partitions = topic, append(rt.Partitions, part)
		res.Topics = append(res.Topics, rt)
		c.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			if len(r.(*kmsg.MetadataRequest).Topics) == 0 || lost.Add(1) > 3 {
				return nil, nil, false
			}
			return nil, errors.New("the connection ends"), true
		})
		return res, nil, true
	})
	start := time.Now()
	if err := stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: topic}); err != nil {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if lost.Load() == 0 {
		t.Error("nobody looked for the leader")
	}
}
