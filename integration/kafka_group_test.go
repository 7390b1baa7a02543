package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/integration/broker"
)

func kafkaShared(t *testing.T, hook stagebus.Hook) *stagebus.Broker {
	t.Helper()
	return kafkaOpen(t, kafka.Options{Brokers: []string{broker.Require(t, broker.Kafka).Addr()}, Hook: hook})
}

func kafkaConsumer(t *testing.T, b *stagebus.Broker, o stagebus.ConsumerOptions) stagebus.Consumer {
	t.Helper()
	c, err := b.Consumer(kafkaContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kafkaReceive(t *testing.T, c stagebus.Consumer, n int) (ds []stagebus.Delivery) {
	t.Helper()
	ctx := kafkaContext(t)
	for len(ds) < n {
		dst := make([]stagebus.Delivery, n-len(ds))
		k, err := c.Receive(ctx, dst)
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(ds), n, err)
		}
		ds = append(ds, dst[:k]...)
	}
	return ds
}

// TestKafkaFreshGroupIsQuick: what a client without patience spends seconds on, a group that the coordinator has never seen.
func TestKafkaFreshGroupIsQuick(t *testing.T) {
	b := kafkaShared(t, nil)
	topic := kafkaTopic(t, b, 4)
	kafkaSend(t, b, topic, "first")
	echo(t, b) // the cluster has met groups before
	start := time.Now()
	c := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: "fresh-" + fmt.Sprint(start.UnixNano())})
	first := kafkaReceive(t, c, 1)[0]
	if d := time.Since(start); d > time.Second {
		t.Errorf("the first message of a fresh group came after %v", d)
	} else {
		t.Logf("the first message of a fresh group came after %v", d)
	}
	_ = c.Settle(kafkaContext(t), stagebus.Done, first.Token)
	_ = c.Close(kafkaContext(t))
}

func TestKafkaTopicDeletedAndMadeAgain(t *testing.T) {
	var mu sync.Mutex
	missing := make(chan stagebus.Event, 100)
	b := kafkaShared(t, func(e stagebus.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == stagebus.EventMissing {
			select {
			case missing <- e:
			default:
			}
		}
	})
	for _, mode := range []stagebus.Mode{stagebus.Shared, stagebus.Assigned} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			topic := kafkaTopic(t, b, 2)
			kafkaSend(t, b, topic, "one", "two", "three")
			c := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: mode, Drain: time.Second,
				Native: kafka.ConsumerOptions{MetadataInterval: 200 * time.Millisecond}})
			ds := kafkaReceive(t, c, 3)
			for _, d := range ds[1:] {
				if err := c.Settle(kafkaContext(t), stagebus.Done, d.Token); err != nil {
					t.Error(err)
				}
			}
			if err := b.Admin().Delete(kafkaContext(t), topic); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-missing:
				if e.Topic != topic || !errors.Is(e.Err, stagebus.ErrNotFound) {
					t.Errorf("got %+v", e)
				}
			case <-kafkaContext(t).Done():
				t.Fatal("nobody said that the topic is missing")
			}
			<-ds[0].Token.Lane.Context().Done()
			if err := c.Settle(kafkaContext(t), stagebus.Done, ds[0].Token); !errors.Is(err, stagebus.ErrStale) {
				t.Errorf("a delivery of the old topic: %v", err)
			}
			if err := b.Admin().Declare(kafkaContext(t), stagebus.TopicSpec{Name: topic, Partitions: 2}); err != nil {
				t.Fatal(err)
			}
			kafkaSend(t, b, topic, "new one", "new two")
			var got []string
			for _, d := range kafkaReceive(t, c, 2) {
				got = append(got, string(d.Body))
				_ = c.Settle(kafkaContext(t), stagebus.Done, d.Token)
			}
			if slices.Sort(got); !slices.Equal(got, []string{"new one", "new two"}) {
				t.Errorf("got %q", got)
			}
			if err := c.Close(kafkaContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKafkaMissingTopic(t *testing.T) {
	b := kafkaShared(t, nil)
	_, err := b.Consumer(kafkaContext(t), stagebus.ConsumerOptions{Topics: []string{"nobody.made.this"}})
	if !errors.Is(err, stagebus.ErrNotFound) || !strings.Contains(err.Error(), "stagebus topics declare nobody.made.this") {
		t.Errorf("consume: %v", err)
	}
	p, err := b.Producer(kafkaContext(t), stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: "nobody.made.this"})
	if !errors.Is(err, stagebus.ErrNoRoute) || !strings.Contains(err.Error(), "stagebus topics declare nobody.made.this") {
		t.Errorf("send: %v", err)
	}
}

// TestKafkaPartitionsAdded: a group and a consumer without one notice partitions that are added while they read.
func TestKafkaPartitionsAdded(t *testing.T) {
	b := kafkaShared(t, nil)
	topic := kafkaTopic(t, b, 1)
	native := kafka.ConsumerOptions{MetadataInterval: 200 * time.Millisecond}
	shared := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}, Native: native})
	own := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Ephemeral, Native: native})

	admin := &kgo.Client{Addr: kgo.TCP(broker.Require(t, broker.Kafka).Addr()), Transport: &kgo.Transport{}}
	defer admin.Transport.(*kgo.Transport).CloseIdleConnections()
	res, err := admin.CreatePartitions(kafkaContext(t), &kgo.CreatePartitionsRequest{Topics: []kgo.TopicPartitionsConfig{{Name: topic, Count: 3}}})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	eventually(t, "a producer that is new sees three partitions", func() bool {
		info, err := b.Admin().Describe(kafkaContext(t), topic)
		return err == nil && len(info.Partitions) == 3
	})
	p, err := b.Producer(kafkaContext(t), stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: topic, Partition: stagebus.At(2), Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]stagebus.Consumer{"shared": shared, "ephemeral": own} {
		d := kafkaReceive(t, c, 1)[0]
		if d.Position.Partition != 2 {
			t.Errorf("%s got %+v", name, d)
		}
		_ = c.Settle(kafkaContext(t), stagebus.Done, d.Token)
		_ = c.Close(kafkaContext(t))
	}
}

// TestKafkaStaticMember comes back within its session and nobody else notices; a second one of the same name ends the first.
func TestKafkaStaticMember(t *testing.T) {
	b := kafkaShared(t, nil)
	topic := kafkaTopic(t, b, 2)
	o := func(id string) stagebus.ConsumerOptions {
		return stagebus.ConsumerOptions{Topics: []string{topic}, Group: "static", Native: kafka.ConsumerOptions{InstanceID: id, SessionTimeout: 10 * time.Second}}
	}
	first := kafkaConsumer(t, b, o("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		var dst [1]stagebus.Delivery
		_, err := first.Receive(ctx, dst[:])
		ended <- err
	}()
	second := kafkaConsumer(t, b, o("a"))
	if err := <-ended; err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "InstanceID") {
		t.Errorf("the first of two members of one name: %v", err)
	}
	kafkaSend(t, b, topic, "x")
	_ = second.Settle(ctx, stagebus.Done, kafkaReceive(t, second, 1)[0].Token)
	if err := errors.Join(first.Close(ctx), second.Close(ctx)); err != nil {
		t.Error(err)
	}
	info, err := b.Admin().Describe(ctx, topic)
	if err != nil || len(info.Groups) != 1 || info.Groups[0].Members != 1 || info.Groups[0].Depth != 0 {
		t.Errorf("a static member stays when it closes: got %+v, %v", info.Groups, err)
	}
}

// TestKafkaReadsEveryCompression of another client, as they come from the broker.
func TestKafkaReadsEveryCompression(t *testing.T) {
	b := kafkaShared(t, nil)
	for _, codec := range []kgo.Compression{kgo.Gzip, kgo.Snappy, kgo.Lz4, kgo.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			topic := kafkaTopic(t, b, 1)
			transport := &kgo.Transport{}
			defer transport.CloseIdleConnections()
			w := &kgo.Writer{Transport: transport, Addr: kgo.TCP(broker.Require(t, broker.Kafka).Addr()), Topic: topic, Compression: codec,
				RequiredAcks: kgo.RequireAll, BatchTimeout: 5 * time.Millisecond}
			var ms []kgo.Message
			for i := range 200 {
				ms = append(ms, kgo.Message{Key: []byte("k"), Value: []byte(strings.Repeat(fmt.Sprint(i, " "), 1000)), Headers: []kgo.Header{{Key: "h", Value: []byte{0, 255}}}})
			}
			if err := errors.Join(w.WriteMessages(kafkaContext(t), ms...), w.Close()); err != nil {
				t.Fatal(err)
			}
			c := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}})
			for i, d := range kafkaReceive(t, c, 200) {
				h, _ := d.Headers.Get("h")
				if string(d.Body) != string(ms[i].Value) || string(d.Key) != "k" || h != "\x00\xff" || d.Err != nil {
					t.Fatalf("message %d: %.40q %v", i, d.Body, d.Err)
				}
				_ = c.Settle(kafkaContext(t), stagebus.Done, d.Token)
			}
			_ = c.Close(kafkaContext(t))
		})
	}
}

// TestKafkaDeadLetterKnowsWhereItBegan: a message that was retried twice is rejected from a retry topic, and its dead letter names the
// topic, partition and offset of the first delivery.
func TestKafkaDeadLetterKnowsWhereItBegan(t *testing.T) {
	b := kafkaShared(t, nil)
	topic := kafkaTopic(t, b, 3)
	ctx := kafkaContext(t)
	p, err := b.Producer(ctx, stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"other", "bad"} {
		m := stagebus.Message{Topic: topic, Partition: stagebus.At(2), Key: []byte("k"), Body: []byte(body), Headers: stagebus.Headers{{Key: "x", Value: "1"}, {Key: "x", Value: ""}}}
		if err := stagebus.Send(ctx, p, m); err != nil {
			t.Fatal(err)
		}
	}
	c := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: "g"})
	ds := kafkaReceive(t, c, 2)
	if err := c.Settle(ctx, stagebus.Done, ds[0].Token); err != nil {
		t.Fatal(err)
	}
	d := ds[1]
	for attempt := 1; attempt < 3; attempt++ {
		if d.Attempt != attempt || d.Topic != topic || string(d.Body) != "bad" || len(d.Headers) != 2 {
			t.Fatalf("attempt %d: got %+v", attempt, d)
		}
		if err := c.Settle(ctx, stagebus.Retry(time.Duration(attempt)*100*time.Millisecond), d.Token); err != nil {
			t.Fatal(err)
		}
		d = kafkaReceive(t, c, 1)[0]
	}
	if err := c.Settle(ctx, stagebus.Reject("no use"), d.Token); err != nil {
		t.Fatal(err)
	}
	dead := kafkaConsumer(t, b, stagebus.ConsumerOptions{Topics: []string{stagebus.DeadLetterTopic(topic, "g")}})
	letter := kafkaReceive(t, dead, 1)[0]
	for name, want := range map[string]string{
		stagebus.HeaderDeadTopic: topic, stagebus.HeaderDeadPartition: "2", stagebus.HeaderDeadOffset: "1",
		stagebus.HeaderDeadAttempt: "3", stagebus.HeaderDeadGroup: "g", stagebus.HeaderDeadReason: "no use",
	} {
		if got, _ := letter.Headers.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(letter.Headers) != 2+7 || letter.Headers[0] != (stagebus.Header{Key: "x", Value: "1"}) || letter.Headers[1] != (stagebus.Header{Key: "x"}) {
		t.Errorf("headers %q", letter.Headers)
	}
	_ = dead.Settle(ctx, stagebus.Done, letter.Token)
	if err := errors.Join(c.Close(ctx), dead.Close(ctx)); err != nil {
		t.Error(err)
	}
	info, err := b.Admin().Describe(ctx, topic)
	if err != nil || len(info.Groups) != 1 || info.Groups[0].Depth != 0 {
		t.Errorf("got %+v, %v: all is settled", info.Groups, err)
	}
}
