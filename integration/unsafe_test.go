package integration

import (
	"strings"
	"testing"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/integration/broker"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a producer asks the leader for, as a broker sees it.
func TestKafkaUnsafeLeaderOnly(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	acks := make(chan int16, 1)
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		acks <- r.(*kmsg.ProduceRequest).Acks
		return nil, nil, false
	})
	b := kafkaOpen(t, kafka.Options{Brokers: c.ListenAddrs()})
	for _, x := range []struct {
		native any
		want   int16
	}{{nil, -1}, {kafka.ProducerOptions{}, -1}, {&kafka.ProducerOptions{UnsafeLeaderOnly: true}, 1}} {
		p, err := b.Producer(kafkaContext(t), stagebus.ProducerOptions{Native: x.native})
		if err != nil {
			t.Fatal(err)
		}
		if err := stagebus.Send(kafkaContext(t), p, stagebus.Message{Topic: "t", Body: []byte("x")}); err != nil {
			t.Errorf("%+v: %v", x.native, err)
		}
		if got := <-acks; got != x.want {
			t.Errorf("%+v: acks=%d, want %d", x.native, got, x.want)
		}
	}
}

// What a producer sends as transient, another client sees as such.
func TestAMQPUnsafeTransient(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	bus := amqpOpen(t, amqpOptions(t, b))
	raw := amqpRaw(t, b)
	queue := amqpQueue(t, b, true, nil)
	for _, c := range []struct {
		native any
		want   uint8
	}{
		{nil, amqp091.Persistent},
		{amqp.ProducerOptions{}, amqp091.Persistent},
		{&amqp.ProducerOptions{UnsafeTransient: true}, amqp091.Transient},
	} {
		p := amqpProducer(t, bus, stagebus.ProducerOptions{Native: c.native})
		if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: queue, Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		got, ok, err := raw.Get(queue, true)
		// 0 is how a transient message may come back as well.
		if mode := max(got.DeliveryMode, amqp091.Transient); err != nil || !ok || mode != c.want {
			t.Errorf("%+v: %v, %v, delivery mode %d, want %d", c.native, ok, err, mode, c.want)
		}
	}
}

// The driver says what the server says that it is.
func TestAMQPServer(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	bus := amqpOpen(t, amqpOptions(t, b))
	server, ok := bus.Driver().(interface{ Server() string })
	if !ok || server.Server() != "" {
		t.Fatalf("%v: want a driver that knows nothing before it has connected", ok)
	}
	if err := bus.Ping(amqpContext(t)); err != nil {
		t.Fatal(err)
	}
	if s := server.Server(); !strings.HasPrefix(s, "RabbitMQ ") {
		t.Errorf("the server is %q", s)
	}
}
