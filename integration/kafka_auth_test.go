package integration

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/integration/broker"
)

// kafkaOpen returns a handle that is closed with the test.
func kafkaOpen(t *testing.T, o kafka.Options) *stagebus.Broker {
	t.Helper()
	b, err := kafka.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func kafkaURL(t *testing.T, raw string) kafka.Options {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	o, err := kafka.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func kafkaContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// kafkaTopic declares a topic of the test's own.
func kafkaTopic(t *testing.T, b *stagebus.Broker, partitions int) string {
	t.Helper()
	name := "it." + strings.NewReplacer("/", ".", " ", "_").Replace(t.Name()) + "." + strings.ToLower(time.Now().Format("150405.000000"))
	if err := b.Admin().Declare(kafkaContext(t), stagebus.TopicSpec{Name: name, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	return name
}

// echo sends a message and receives it.
func echo(t *testing.T, b *stagebus.Broker) {
	t.Helper()
	ctx := kafkaContext(t)
	topic := kafkaTopic(t, b, 1)
	kafkaSend(t, b, topic, "hello")
	c, err := b.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	var dst [1]stagebus.Delivery
	if _, err := c.Receive(ctx, dst[:]); err != nil || string(dst[0].Body) != "hello" {
		t.Fatalf("received %q, %v", dst[0].Body, err)
	}
	if err := c.Settle(ctx, stagebus.Done, dst[0].Token); err != nil {
		t.Error(err)
	}
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

func kafkaSend(t *testing.T, b *stagebus.Broker, topic string, bodies ...string) {
	t.Helper()
	ctx := kafkaContext(t)
	p, err := b.Producer(ctx, stagebus.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range bodies {
		if err := stagebus.Send(ctx, p, stagebus.Message{Topic: topic, Body: []byte(s)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestKafkaSASL(t *testing.T) {
	raw, ok := broker.Require(t, broker.Kafka).SASLURL()
	if !ok {
		t.Skip("this broker has no listener with SASL")
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			o := kafkaURL(t, raw+"?auth_mechanism="+mechanism)
			echo(t, kafkaOpen(t, o))

			o.SASL.Password = "not-the-password"
			start := time.Now()
			_, err := kafkaOpen(t, o).Producer(kafkaContext(t), stagebus.ProducerOptions{})
			if !errors.Is(err, stagebus.ErrAuth) || strings.Contains(err.Error(), o.SASL.Password) || !strings.Contains(err.Error(), o.Brokers[0]) {
				t.Errorf("wrong password: got %v", err)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("wrong password: known after %v", d)
			}
		})
	}
	t.Run("without a login", func(t *testing.T) {
		o := kafkaURL(t, raw)
		o.SASL = kafka.SASL{}
		_, err := kafkaOpen(t, o).Producer(kafkaContext(t), stagebus.ProducerOptions{})
		if !errors.Is(err, stagebus.ErrUnavailable) && !errors.Is(err, stagebus.ErrAuth) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKafkaTLS(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	raw, ok := b.TLSURL()
	certs, ok2 := b.Certs()
	if !ok || !ok2 {
		t.Skip("this broker has no listener with TLS")
	}
	full := raw + "?" + url.Values{"cacertfile": {certs.CA}, "certfile": {certs.Cert}, "keyfile": {certs.Key}}.Encode()
	t.Run("client certificate", func(t *testing.T) { echo(t, kafkaOpen(t, kafkaURL(t, full))) })
	for name, c := range map[string]struct {
		raw  string
		says string
	}{
		"unknown authority":      {raw, "cacertfile"},
		"no client certificate":  {raw + "?" + url.Values{"cacertfile": {certs.CA}}.Encode(), "certfile"},
		"another host":           {full + "&server_name_indication=elsewhere.example", "server_name_indication"},
		"plain port":             {strings.Replace(full, strings.TrimPrefix(raw, "kafkas://"), b.Addr(), 1), "kafka://"},
		"plain client, TLS port": {strings.Replace(raw, "kafkas://", "kafka://", 1), "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kafkaOpen(t, kafkaURL(t, c.raw)).Producer(kafkaContext(t), stagebus.ProducerOptions{})
			if !errors.Is(err, stagebus.ErrUnavailable) && !errors.Is(err, stagebus.ErrAuth) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want one that says %q", err, c.says)
			}
		})
	}
}
