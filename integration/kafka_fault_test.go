package integration

import (
	"errors"
	"strings"
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

// TestKafkaRejectsTheLargest: a copy has more headers than its message, and must find room where messages are as large as their topic takes.
func TestKafkaRejectsTheLargest(t *testing.T) {
	b := kafkaShared(t, nil)
	topic := kafkaTopic(t, b, 1)
	p, err := b.Producer(kafkaContext(t), stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, b.Capabilities().MaxMessage)
	if err := stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: topic, Body: body}); err != nil {
		t.Fatal(err)
	}
	c := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}})
	d := kafkaReceive(t, c, 1)[0]
	if err := c.Settle(kafkaContext(t), stagebus.Retry(0), d.Token); err != nil {
		t.Fatalf("retry: %v", err)
	}
	d = kafkaReceive(t, c, 1)[0]
	if err := c.Settle(kafkaContext(t), stagebus.Reject(strings.Repeat("why ", 300)), d.Token); err != nil {
		t.Fatalf("reject: %v", err)
	}
	dlq := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{stagebus.DeadLetterTopic(topic, "")}})
	dead := kafkaReceive(t, dlq, 1)[0]
	if err := dlq.Settle(kafkaContext(t), stagebus.Done, dead.Token); err != nil {
		t.Error(err)
	}
	if len(dead.Body) != len(body) {
		t.Errorf("%d bytes among the dead letters, want %d", len(dead.Body), len(body))
	}
}
