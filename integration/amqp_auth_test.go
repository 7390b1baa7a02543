package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/integration/broker"
)

// The first connection fails at once, with what is wrong and without the password.
func TestAMQPConnectFails(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close() // nobody listens there now

	for name, c := range map[string]struct {
		change func(*amqp.Options)
		want   error
		says   string
	}{
		"wrong password":     {func(o *amqp.Options) { o.Password = "topsecret" }, stagebus.ErrAuth, "password"},
		"no such vhost":      {func(o *amqp.Options) { o.Vhost = "nowhere" }, stagebus.ErrAuth, "vhost"},
		"connection refused": {func(o *amqp.Options) { o.Addresses = []string{refused.Addr().String()} }, stagebus.ErrUnavailable, "refused"},
		"no such host":       {func(o *amqp.Options) { o.Addresses = []string{"nowhere.invalid"} }, stagebus.ErrUnavailable, "nowhere.invalid"},
		"says nothing": {func(o *amqp.Options) {
			o.Addresses, o.ConnectTimeout = []string{listener.Addr().String()}, 200*time.Millisecond
		}, stagebus.ErrUnavailable, "running"},
	} {
		t.Run(name, func(t *testing.T) {
			o := amqpOptions(t, b)
			c.change(&o)
			bus := amqpOpen(t, o)
			_, err := bus.Producer(amqpContext(t), stagebus.ProducerOptions{})
			_, typed := errors.AsType[*stagebus.Error](err)
			if !errors.Is(err, c.want) || !typed || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("producer: %v", err)
			}
			if _, err := bus.Consumer(amqpContext(t), stagebus.ConsumerOptions{Topics: []string{"t"}}); !errors.Is(err, c.want) {
				t.Errorf("consumer: %v", err)
			}
			if err := bus.Ping(amqpContext(t)); !errors.Is(err, c.want) {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

// A caller's context ends a connect that hangs, and one of several addresses is enough.
func TestAMQPConnectAddresses(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	o := amqpOptions(t, b)
	o.Addresses = []string{silent.Addr().String()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := amqpOpen(t, o).Ping(ctx); !errors.Is(err, stagebus.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	o.Addresses = append(o.Addresses, b.Addr())
	o.ConnectTimeout = 2 * time.Second
	for range 4 { // the order is random
		if err := amqpOpen(t, o).Ping(amqpContext(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestAMQPTLS(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	address, ok := b.TLSURL()
	certs, have := b.Certs()
	if !ok || !have {
		t.Skip("needs STAGEBUS_TEST_AMQPS_URL and STAGEBUS_TEST_CERTS")
	}
	files := url.Values{"cacertfile": {certs.CA}, "certfile": {certs.Cert}, "keyfile": {certs.Key}}
	open := func(t *testing.T, params url.Values) *stagebus.Broker {
		t.Helper()
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if params.Get("auth_mechanism") == "external" {
			u.User = nil // whoever the certificate says
		}
		u.RawQuery = params.Encode()
		o, err := amqp.ParseURL(u)
		if err != nil {
			t.Fatal(err)
		}
		return amqpOpen(t, o)
	}
	with := func(kv ...string) url.Values {
		v := url.Values{}
		for name := range files {
			v.Set(name, files.Get(name))
		}
		for i := 0; i < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v
	}
	for name, params := range map[string]url.Values{
		"plain":    {"cacertfile": {certs.CA}},
		"external": with("auth_mechanism", "external"),
	} {
		t.Run(name, func(t *testing.T) {
			bus := open(t, params)
			topic := amqpTopic(t, bus, stagebus.TopicSpec{})
			if err := stagebus.Send(amqpContext(t), amqpProducer(t, bus, stagebus.ProducerOptions{}), stagebus.Message{Topic: topic, Body: []byte("secret")}); err != nil {
				t.Fatal(err)
			}
			c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
			d := amqpReceive(t, c, 1)[0]
			amqpSettle(t, c, stagebus.Done, d)
			if string(d.Body) != "secret" {
				t.Errorf("%q", d.Body)
			}
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		err := open(t, nil).Ping(amqpContext(t))
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !errors.Is(err, stagebus.ErrUnavailable) || !unknown || !strings.Contains(err.Error(), "cacertfile") {
			t.Error(err)
		}
	})
	t.Run("wrong name", func(t *testing.T) {
		err := open(t, url.Values{"cacertfile": {certs.CA}, "server_name_indication": {"another.example"}}).Ping(amqpContext(t))
		if _, refused := errors.AsType[*tls.CertificateVerificationError](err); !errors.Is(err, stagebus.ErrUnavailable) || !refused {
			t.Error(err)
		}
	})
	t.Run("plain text to the TLS port", func(t *testing.T) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := amqpOpen(t, amqp.Options{Addresses: []string{u.Host}}).Ping(amqpContext(t)); !errors.Is(err, stagebus.ErrUnavailable) {
			t.Error(err)
		}
	})
}
