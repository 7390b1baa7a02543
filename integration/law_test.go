package integration

import (
	"net/url"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/adaptertest"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/integration/broker"
)

// TestLaw runs the conformance suite on each adapter and broker, bare and through a stack of middleware.
func TestLaw(t *testing.T) {
	for name, harness := range map[string]func(*testing.T) adaptertest.Harness{
		"kfake":   kfakeLaw,
		"kafka":   kafkaLaw,
		"classic": func(t *testing.T) adaptertest.Harness { return amqpLaw(t, "classic") },
		"quorum":  func(t *testing.T) adaptertest.Harness { return amqpLaw(t, "quorum") },
	} {
		t.Run(name, func(t *testing.T) {
			h := harness(t)
			t.Run("bare", func(t *testing.T) { adaptertest.Run(t, h) })
			t.Run("stack", func(t *testing.T) { adaptertest.Run(t, adaptertest.WithStack(h)) })
		})
	}
}

// law makes a harness of an adapter's New.
func law(open func(stagebus.BrokerOptions) (*stagebus.Broker, error)) adaptertest.Harness {
	return adaptertest.Harness{Open: func(t testing.TB, o stagebus.BrokerOptions) *stagebus.Broker {
		t.Helper()
		b, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		return stagebus.NewBroker(b.Driver(), o)
	}}
}

func kafkaHarness(addrs ...string) adaptertest.Harness {
	h := law(func(stagebus.BrokerOptions) (*stagebus.Broker, error) {
		return kafka.New(kafka.Options{Brokers: addrs})
	})
	h.Revokes = true
	h.Expect = &stagebus.Capabilities{
		Replay: true, History: true, Partitions: true, KeyOrder: true, Offsets: true, Tombstones: true, MaxMessage: 1_048_000,
	}
	return h
}

func kfakeLaw(t *testing.T) adaptertest.Harness {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := kafkaHarness(c.ListenAddrs()...)
	h.Foreign = []string{"franz-go/pkg/kfake"} // the broker runs in this process
	return h
}

func kafkaLaw(t *testing.T) adaptertest.Harness {
	return kafkaHarness(broker.Require(t, broker.Kafka).Addr())
}

func amqpLaw(t *testing.T, queueType string) adaptertest.Harness {
	b := broker.Require(t, broker.AMQP)
	u, err := url.Parse(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	management, _ := b.Management()
	h := law(func(stagebus.BrokerOptions) (*stagebus.Broker, error) {
		return amqp.New(amqp.Options{
			Addresses: []string{u.Host}, User: u.User.Username(), Password: password, Management: management, QueueType: queueType,
		})
	})
	h.Topic = func(s *stagebus.TopicSpec) {
		if s.Native == nil {
			s.Native = amqp.TopicSpec{QueueType: queueType}
		}
	}
	return h
}
