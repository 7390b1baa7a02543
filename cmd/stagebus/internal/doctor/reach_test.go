package doctor

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestResolve(t *testing.T) {
	for name, c := range map[string]struct {
		url    string
		lookup error
	}{
		"service": {"kafka://kafka:9092", &net.DNSError{Err: "no such host", IsNotFound: true}},
		"domain":  {"amqp://u:hunter2@rabbit.example.org/", &net.DNSError{Err: "no such host", IsNotFound: true}},
		"timeout": {"kafka://kafka.example.org:9092", &net.DNSError{Err: "i/o timeout", IsTimeout: true}},
		"failure": {"kafka://kafka.example.org:9092", &net.DNSError{Err: "server misbehaving"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := examine(t, c.url, Options{world: world{lookup: func(context.Context, string) ([]string, error) { return nil, c.lookup }}})
			if !r.heals() {
				t.Error("a name may come into being while a network is being made")
			}
		})
	}
}

func TestTCP(t *testing.T) {
	names := map[string][]string{"broker.example.org": {"192.0.2.7"}, "pair.example.org": {"192.0.2.7", "192.0.2.8"}, "localhost": {"::1", "127.0.0.1"}}
	kafka := &fakeKafka{cluster: "c"}
	at := serve(t, nil, kafka.talk)
	kafka.brokers = brokersAt("localhost:9092")
	for name, c := range map[string]struct {
		url    string
		routes map[string]string
		status Status
	}{
		"refused":        {"kafka://127.0.0.1:9092", map[string]string{"127.0.0.1:9092": "refused"}, Fail},
		"refused rabbit": {"amqp://127.0.0.1", map[string]string{"127.0.0.1:5672": "refused"}, Fail},
		"refused there":  {"kafkas://broker.example.org:9093", map[string]string{"192.0.2.7:9093": "refused"}, Fail},
		"refused both":   {"kafka://localhost:9092", map[string]string{"[::1]:9092": "refused", "127.0.0.1:9092": "refused"}, Fail},
		"silent":         {"kafka://broker.example.org:9092", map[string]string{"192.0.2.7:9092": "silent"}, Fail},
		"no route":       {"amqps://pair.example.org", map[string]string{"192.0.2.7:5671": "unreachable", "192.0.2.8:5671": "refused"}, Fail},
		"ipv6 first":     {"kafka://localhost:9092", map[string]string{"[::1]:9092": "refused", "127.0.0.1:9092": at}, Warn},
		"one of two": {"kafka://broker.example.org:9092,localhost:9092",
			map[string]string{"192.0.2.7:9092": "refused", "[::1]:9092": at, "127.0.0.1:9092": at}, Warn},
	} {
		t.Run(name, func(t *testing.T) {
			r := examine(t, c.url, Options{Timeout: 2 * time.Second, ReadOnly: true, world: network{names, c.routes}.world()})
			if r.Status() != c.status || !r.heals() {
				t.Errorf("status %s, heals %v", r.Status(), r.heals())
			}
		})
	}
	t.Run("really refused", func(t *testing.T) {
		address := closedPort(t)
		examine(t, "kafka://"+address, Options{}, port(address, "PORT")...)
	})
}

// What listens is something else than what the URL says.
func TestForeign(t *testing.T) {
	a := newAuthority(t, "Test CA")
	conf := &tls.Config{Certificates: []tls.Certificate{a.issue("server", -time.Hour, 100*24*time.Hour, "127.0.0.1")}}
	kafka := &fakeKafka{cluster: "c", brokers: brokersAt()}
	rabbit := &fakeAMQP{product: "RabbitMQ", version: "4.1.0", mechanisms: "PLAIN"}
	ca := "?cacertfile=" + a.file
	for name, c := range map[string]struct {
		scheme, params string
		conf           *tls.Config
		talk           func(net.Conn)
	}{
		"kafka for rabbit":            {"kafka", "", nil, rabbit.talk},
		"rabbit for kafka":            {"amqp", "", nil, kafka.talk},
		"kafka for kafka in TLS":      {"kafka", "", conf, kafka.talk},
		"rabbit for rabbit in TLS":    {"amqp", "", conf, rabbit.talk},
		"kafka in TLS for kafka":      {"kafkas", ca, nil, kafka.talk},
		"rabbit in TLS for rabbit":    {"amqps", ca, nil, rabbit.talk},
		"kafka in TLS for rabbit":     {"kafkas", ca, nil, rabbit.talk},
		"rabbit in TLS for kafka":     {"amqps", ca, nil, kafka.talk},
		"both in TLS":                 {"kafkas", ca, conf, rabbit.talk},
		"kafka for a web server":      {"kafka", "", nil, talkHTTP},
		"rabbit for a web server":     {"amqp", "", nil, talkHTTP},
		"kafka in TLS for web":        {"kafkas", ca, nil, talkHTTP},
		"kafka for who hangs up":      {"kafka", "", nil, func(net.Conn) {}},
		"rabbit for who hangs up":     {"amqp", "", nil, func(net.Conn) {}},
		"TLS for who hangs up":        {"amqps", ca, nil, func(net.Conn) {}},
		"kafka for who says nothing":  {"kafka", "", nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"rabbit for who says nothing": {"amqp", "", nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"kafka for nonsense": {"kafka", "", nil, func(c net.Conn) {
			_, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n")) // before any question
			_, _ = io.Copy(io.Discard, c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var o Options
			if strings.Contains(name, "nothing") || strings.Contains(name, "web") || strings.Contains(name, "nonsense") {
				t.Parallel() // these wait until the time is over
				o.Timeout = time.Second
			}
			at := serve(t, c.conf, c.talk)
			r := examine(t, c.scheme+"://u:hunter2@"+at+c.params, o, port(at, "PORT")...)
			if r.Status() != Fail {
				t.Error(r.Status())
			}
		})
	}
	t.Run("management", func(t *testing.T) {
		at := serve(t, nil, talkHTTP)
		examine(t, "amqp://127.0.0.1:15672", Options{Timeout: time.Second, world: network{routes: map[string]string{"127.0.0.1:15672": at}}.world()})
	})
}

func TestTLS(t *testing.T) {
	a, other := newAuthority(t, "Test CA"), newAuthority(t, "Other CA")
	const day = 24 * time.Hour
	ca := "cacertfile=" + a.file
	good := a.issue("server", -day, 100*day, "localhost", "127.0.0.1")
	pool := a.pool()
	for name, c := range map[string]struct {
		conf   *tls.Config
		params string
		status Status
	}{
		"fine":           {&tls.Config{Certificates: []tls.Certificate{good}}, ca, OK},
		"soon":           {&tls.Config{Certificates: []tls.Certificate{a.issue("server", -day, 12*day+time.Hour, "127.0.0.1")}}, ca, Warn},
		"expired":        {&tls.Config{Certificates: []tls.Certificate{a.issue("server", -9*day, -3*day-time.Hour, "127.0.0.1")}}, ca, Fail},
		"not yet":        {&tls.Config{Certificates: []tls.Certificate{a.issue("server", 2*day+time.Hour, 9*day, "127.0.0.1")}}, ca, Fail},
		"name":           {&tls.Config{Certificates: []tls.Certificate{a.issue("server", -day, 100*day, "broker.example.org", "10.0.0.1")}}, ca, Fail},
		"no name":        {&tls.Config{Certificates: []tls.Certificate{a.issue("127.0.0.1", -day, 100*day)}}, ca, Fail},
		"authority":      {&tls.Config{Certificates: []tls.Certificate{good}}, "", Fail},
		"other":          {&tls.Config{Certificates: []tls.Certificate{good}}, "cacertfile=" + other.file, Fail},
		"self-signed":    {&tls.Config{Certificates: []tls.Certificate{a.issue("self", -day, 100*day, "127.0.0.1")}}, "", Fail},
		"everything":     {&tls.Config{Certificates: []tls.Certificate{other.issue("server", -9*day, -3*day-time.Hour, "broker.example.org")}}, ca, Fail},
		"old":            {&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ca, Fail},
		"wants ours":     {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, ca, Fail},
		"wants ours 1.2": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: tls.VersionTLS12}, ca, Fail},
		"has ours": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
			ca + "&" + a.files(a.issue("me", -day, 100*day)), OK},
		"not this one": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
			ca + "&" + other.files(other.issue("me", -day, 100*day)), Fail},
		"ours expired": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert},
			ca + "&" + a.files(a.issue("me", -9*day, -day)), Fail},
		"ours soon": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert},
			ca + "&" + a.files(a.issue("me", -9*day, 5*day+time.Hour)), Warn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafka := &fakeKafka{cluster: "c"}
			at := serve(t, c.conf, kafka.talk)
			kafka.brokers = brokersAt(at)
			r := examine(t, "kafkas://"+at+"?"+c.params, Options{ReadOnly: true}, port(at, "PORT")...)
			if r.Status() != c.status || r.Status() == Fail && r.heals() {
				t.Errorf("status %s, heals %v", r.Status(), r.heals())
			}
		})
	}
}
