package amqp

import (
	"reflect"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

func rabbit(version string) server {
	return serverOf(amqp091.Table{"product": "RabbitMQ", "version": version})
}

func TestServer(t *testing.T) {
	for _, c := range []struct {
		version             string
		quorum, safe, limit bool
		max                 int
	}{
		{"3.7.28", false, false, false, 128 << 20},
		{"3.8.14", true, false, false, 128 << 20},
		{"3.9.0", true, false, false, 128 << 20},
		{"3.10.8", true, true, false, 128 << 20},
		{"3.13.7", true, true, false, 128 << 20},
		{"4.0.5", true, true, true, 16 << 20},
		{"4.3.0-rc.1", true, true, true, 16 << 20},
		{"10.0.0", true, true, true, 16 << 20},
		{"four", false, false, false, 16 << 20},
		{"", false, false, false, 16 << 20},
	} {
		s := rabbit(c.version)
		if s.quorumQueues() != c.quorum || s.safeDeadLettering() != c.safe || s.deliveryLimit() != c.limit || s.maxMessage() != c.max {
			t.Errorf("%s: %v %v %v %d", c.version, s.quorumQueues(), s.safeDeadLettering(), s.deliveryLimit(), s.maxMessage())
		}
	}
	other := serverOf(amqp091.Table{"product": "LavinMQ", "version": "4.1.0"})
	if other.quorumQueues() || other.maxMessage() != 16<<20 || serverOf(nil).quorumQueues() {
		t.Error("another product is taken for RabbitMQ")
	}
}

// Queue arguments can't be changed later: this is what is in the queues that users have.
func TestArguments(t *testing.T) {
	for _, c := range []struct {
		version string
		p       place
		want    []amqp091.Table
	}{
		{"3.7.1", place{}, []amqp091.Table{{"x-queue-type": "classic"}}},
		{"3.10.8", place{}, []amqp091.Table{{"x-queue-type": "quorum"}, {"x-queue-type": "classic"}}},
		{"3.10.8", place{queueType: quorum}, []amqp091.Table{{"x-queue-type": "quorum"}}},
		{"4.0.1", place{}, []amqp091.Table{{"x-queue-type": "quorum", "x-delivery-limit": int64(-1)}, {"x-queue-type": "classic"}}},
		{"4.0.1", place{queueType: classic, single: true}, []amqp091.Table{{"x-queue-type": "classic", "x-single-active-consumer": true}}},
	} {
		if got := rabbit(c.version).arguments(c.p); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %+v: %v", c.version, c.p, got)
		}
	}
}

func TestRetryArguments(t *testing.T) {
	old := amqp091.Table{"x-queue-type": "classic", "x-message-ttl": int64(5000), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}
	if got := rabbit("3.8.9").retryArguments(5*time.Second, "q"); !reflect.DeepEqual(got, []amqp091.Table{old}) {
		t.Error(got)
	}
	got := rabbit("4.1.0").retryArguments(5*time.Second, "q")
	want := amqp091.Table{
		"x-queue-type": "quorum", "x-message-ttl": int64(5000), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q",
		"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-delivery-limit": int64(-1),
	}
	if len(got) != 2 || !reflect.DeepEqual(got[0], want) || !reflect.DeepEqual(got[1], old) {
		t.Error(got)
	}
	if n := len(retrySteps); n < 10 || retrySteps[0] != 100*time.Millisecond || retrySteps[n-1] != 24*time.Hour {
		t.Error(retrySteps)
	}
}
