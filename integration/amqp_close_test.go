package integration

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

func TestAMQPCloseInAHurry(t *testing.T) {
	const rounds = 20
	b := broker.Require(t, broker.AMQP)
	base, ok := b.Management()
	if !ok {
		t.Skip("needs the management API")
	}
	o := amqpOptions(t, b)
	bus := amqpOpen(t, o)
	topic := amqpTopic(t, bus, stagebus.TopicSpec{})
	stays := amqpProducer(t, bus, stagebus.ProducerOptions{})
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	for range rounds {
		p := amqpProducer(t, bus, stagebus.ProducerOptions{Window: 4096})
		ms := make([]stagebus.Message, 4000)
		for i := range ms {
			ms[i] = stagebus.Message{Topic: "queue:no-such-queue", Body: make([]byte, 100)}
		}
		if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: "queue:" + topic}); err != nil {
			t.Fatal(err)
		}
		done := make(chan []stagebus.Outcome, 1)
		if err := p.Submit(amqpContext(t), ms, func(os []stagebus.Outcome) { done <- os }); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(hurry); !errors.Is(err, stagebus.ErrUncertain) {
			t.Errorf("close: %v", err)
		}
		<-done
		began := time.Now()
		if err := stagebus.Send(amqpContext(t), stays, stagebus.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Fatalf("another producer's message took %v", took)
		}
	}
	var list []struct {
		Channels   int `json:"channels"`
		Properties struct {
			Name string `json:"connection_name"`
		} `json:"client_properties"`
	}
	eventually(t, "the channels are closed", func() bool {
		manage(t, http.MethodGet, base+"/api/connections", &list)
		n, seen := 0, false
		for _, c := range list {
			if c.Properties.Name == o.Name {
				n, seen = n+c.Channels, true
			}
		}
		return seen && n <= 4
	})
}
