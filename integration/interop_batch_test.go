package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	franz "github.com/twmb/franz-go/pkg/kgo"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// A key is in the same partition whoever sends it, so that its messages keep their order: Java's murmur2.
func TestInteropKafkaPartitions(t *testing.T) {
	const partitions = 7
	b := broker.Require(t, broker.Kafka)
	keys := []string{"user-7", "\x00\xff", "grün", string(everyByte)}
	for i := range 60 {
		keys = append(keys, fmt.Sprint("key-", i, strings.Repeat("x", i%5)))
	}
	test := func(t *testing.T, publish func(t *testing.T, topic string)) {
		bus := kafkaShared(t, nil)
		topic := kafkaTopic(t, bus, partitions)
		producer, err := bus.Producer(kafkaContext(t), stagebus.ProducerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if err := stagebus.Send(kafkaContext(t), producer, stagebus.Message{Topic: topic, Key: []byte(key), Body: []byte("ours")}); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, topic)
		places := map[string][]int32{}
		used := map[int32]bool{}
		for _, r := range franzFetch(t, b, topic, 2*len(keys)) {
			places[string(r.Key)] = append(places[string(r.Key)], r.Partition)
			used[r.Partition] = true
		}
		for _, key := range keys {
			if p := places[key]; len(p) != 2 || p[0] != p[1] {
				t.Errorf("key %.20q was sent to partitions %v", key, p)
			}
		}
		if len(used) != partitions {
			t.Errorf("only the partitions %v were used", used)
		}
	}
	options := map[string]string{withConfluent.name: "partitioner=murmur2_random"}
	eachPeer(t, kafkaPeers, func(t *testing.T, p peer) {
		test(t, func(t *testing.T, topic string) {
			var lines []kafkaLine
			for _, key := range keys {
				lines = append(lines, kafkaLine{Key: []byte(key), Value: []byte("theirs")})
			}
			args := []string{b.Addr(), topic}
			if o := options[p.name]; o != "" {
				args = append(args, o)
			}
			publishLines(t, p, lines, args...)
		})
	})
	t.Run("kcat", func(t *testing.T) {
		needCommand(t, "kcat")
		keys = slices.Delete(keys, 1, 4) // what its standard input has by lines is text, and its output as well
		test(t, func(t *testing.T, topic string) {
			r := cliRun(t, strings.Join(keys, ":theirs\n")+":theirs\n", nil, "kcat", "-P", "-b", b.Addr(), "-t", topic, "-K:", "-X", "partitioner=murmur2_random")
			if r.code != 0 {
				t.Fatalf("kcat: %+v", r)
			}
		})
	})
}

// franzFetch reads n records of a topic by a third client, which also knows how their batches were made.
func franzFetch(t *testing.T, b *broker.Broker, topic string, n int) (rs []*franz.Record) {
	t.Helper()
	c, err := franz.NewClient(franz.SeedBrokers(b.Addr()), franz.ConsumeTopics(topic), franz.ConsumeResetOffset(franz.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for len(rs) < n {
		fetches := c.PollFetches(kafkaContext(t))
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(rs), n, err)
		}
		rs = append(rs, fetches.Records()...)
	}
	return rs
}

// What the other clients compress is read.
func TestInteropKafkaCompression(t *testing.T) {
	const messages = 50
	codecs := map[string]uint8{"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4} // as the attributes of a batch have them
	all := slices.Sorted(func(yield func(string) bool) {
		for name := range codecs {
			if !yield(name) {
				return
			}
		}
	})
	b := broker.Require(t, broker.Kafka)
	body := func(i int) string { return strings.Repeat(fmt.Sprint("message ", i, " "), 1000) }
	test := func(t *testing.T, codec string, publish func(t *testing.T, topic string)) {
		bus := kafkaShared(t, nil)
		topic := kafkaTopic(t, bus, 1)
		publish(t, topic)
		for _, r := range franzFetch(t, b, topic, messages) {
			if r.Attrs.CompressionType() != codecs[codec] {
				t.Fatalf("offset %d: compressed by %d, want %s", r.Offset, r.Attrs.CompressionType(), codec)
			}
		}
		c := kafkaConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Assigned})
		for i, d := range kafkaReceive(t, c, messages) {
			h, _ := d.Headers.Get("h")
			if string(d.Body) != body(i) || string(d.Key) != "k" || h != "\x00\xff" || d.Err != nil {
				t.Fatalf("message %d: %.60q, key %q, header %q, %v", i, d.Body, d.Key, h, d.Err)
			}
			if err := c.Settle(kafkaContext(t), stagebus.Done, d.Token); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lines []kafkaLine
	for i := range messages {
		lines = append(lines, kafkaLine{Key: []byte("k"), Value: []byte(body(i)), Headers: []wireHeader{{"h", []byte{0, 255}}}})
	}
	for _, c := range []struct {
		peer
		codecs []string
		option string
	}{
		{withConfluent, all, "compression.type="},
		{withKafkaJava, all, "compression.type="},
		{withKafkaPython, []string{"gzip"}, "compression_type="}, // the others need more packages
	} {
		for _, codec := range c.codecs {
			t.Run(c.name+"/"+codec, func(t *testing.T) {
				test(t, codec, func(t *testing.T, topic string) { publishLines(t, c.peer, lines, b.Addr(), topic, c.option+codec) })
			})
		}
	}
}

// Of the transactions of the Java client only what was committed arrives.
func TestInteropKafkaTransactions(t *testing.T) {
	yes, no := true, false
	b := broker.Require(t, broker.Kafka)
	withKafkaJava.command(t)
	bus := kafkaShared(t, nil)
	topic := kafkaTopic(t, bus, 1)
	c := kafkaConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
	publishLines(t, withKafkaJava, []kafkaLine{
		{Value: []byte("one")}, {Commit: &yes}, {Value: []byte("given up")}, {Commit: &no}, {Value: []byte("two")},
	}, b.Addr(), topic, "transactional.id="+topic)
	for _, want := range []string{"one", "two"} {
		d := kafkaReceive(t, c, 1)[0]
		if string(d.Body) != want || d.Err != nil {
			t.Errorf("received %q, %v, want %q", d.Body, d.Err, want)
		}
		if err := c.Settle(kafkaContext(t), stagebus.Done, d.Token); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever waits for more passes the marker of the last transaction as well: nothing is left.
	ctx, stop := context.WithCancel(kafkaContext(t))
	ended := make(chan error, 1)
	go func() {
		_, err := c.Receive(ctx, make([]stagebus.Delivery, 1))
		ended <- err
	}()
	eventually(t, "the group is at the end", func() bool {
		info, err := bus.Admin().Describe(ctx, topic)
		return err == nil && len(info.Groups) == 1 && info.Groups[0].Depth == 0
	})
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after the last message: %v", err)
	}
	if err := c.Close(kafkaContext(t)); err != nil {
		t.Error(err)
	}
}
