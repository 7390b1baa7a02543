package doctor

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAMQPLogin(t *testing.T) {
	hangUp := func(net.Conn, *bufio.Reader) {}
	remote := network{names: map[string][]string{"rabbit.example.org": {"192.0.2.7"}}, routes: map[string]string{}}
	for name, c := range map[string]struct {
		url   string // HOST is the address
		fake  fakeAMQP
		heals bool
	}{
		"hangs up":      {"amqp://me:hunter2@HOST/", fakeAMQP{after: hangUp}, false},
		"refused":       {"amqp://me:hunter2@HOST/", fakeAMQP{after: refuses(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN")}, false},
		"guest":         {"amqp://HOST/", fakeAMQP{after: hangUp}, false},
		"guest there":   {"amqp://rabbit.example.org/", fakeAMQP{after: hangUp}, false},
		"vhost":         {"amqp://me:hunter2@HOST/nowhere", fakeAMQP{after: tuned(refuses(530, "NOT_ALLOWED - vhost nowhere not found"))}, false},
		"vhost no word": {"amqp://me:hunter2@HOST/nowhere", fakeAMQP{after: tuned(hangUp)}, false},
		"mechanism":     {"amqp://me:hunter2@HOST/", fakeAMQP{mechanisms: "AMQPLAIN EXTERNAL"}, false},
		"another error": {"amqp://me:hunter2@HOST/", fakeAMQP{after: tuned(refuses(320, "CONNECTION_FORCED - broker forced connection closure"))}, true},
		"old":           {"amqp://me:hunter2@HOST/", fakeAMQP{version: "3.7.28", after: hangUp}, false},
		"other product": {"amqp://me:hunter2@HOST/", fakeAMQP{product: "LavinMQ", version: "2.0.0", after: hangUp}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fake.product == "" {
				c.fake.product = "RabbitMQ"
			}
			if c.fake.version == "" {
				c.fake.version = "4.1.0"
			}
			if c.fake.mechanisms == "" {
				c.fake.mechanisms = "PLAIN AMQPLAIN"
			}
			at := serve(t, nil, c.fake.talk)
			remote.routes["192.0.2.7:5672"] = at
			r := examine(t, strings.ReplaceAll(c.url, "HOST", at), Options{world: remote.world()}, port(at, "PORT")...)
			if r.Status() != Fail || r.heals() != c.heals {
				t.Errorf("status %s, heals %v", r.Status(), r.heals())
			}
		})
	}
}

// A name that the certificate doesn't stand for, and a mechanism that isn't there, with TLS below.
func TestAMQPExternal(t *testing.T) {
	a := newAuthority(t, "Test CA")
	conf := serverTLS(a)
	mine := "&" + a.files(a.issue("me", -time.Hour, 100*24*time.Hour))
	for name, fake := range map[string]fakeAMQP{
		"unknown user": {product: "RabbitMQ", version: "4.1.0", mechanisms: "PLAIN EXTERNAL", after: func(net.Conn, *bufio.Reader) {}},
		"mechanism":    {product: "RabbitMQ", version: "4.1.0", mechanisms: "PLAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, conf, fake.talk)
			examine(t, "amqps://"+at+"/?auth_mechanism=external&cacertfile="+a.file+mine, Options{}, port(at, "PORT")...)
		})
	}
}

func TestKafkaLogin(t *testing.T) {
	const wrongPassword = 58
	for name, c := range map[string]struct {
		url  string
		fake fakeKafka
	}{
		"none given":       {"kafka://HOST", fakeKafka{offers: []string{"PLAIN", "SCRAM-SHA-256"}}},
		"none given scram": {"kafka://HOST", fakeKafka{offers: []string{"SCRAM-SHA-512"}}},
		"none given other": {"kafka://HOST", fakeKafka{offers: []string{"GSSAPI", "OAUTHBEARER"}}},
		"not wanted":       {"kafka://me:hunter2@HOST", fakeKafka{}},
		"mechanism":        {"kafka://me:hunter2@HOST", fakeKafka{offers: []string{"SCRAM-SHA-512", "SCRAM-SHA-256"}}},
		"no mechanism":     {"kafka://me:hunter2@HOST", fakeKafka{offers: []string{"GSSAPI"}}},
		"password":         {"kafka://me:hunter2@HOST", fakeKafka{offers: []string{"PLAIN"}, refuse: wrongPassword, said: "Authentication failed: Invalid username or password"}},
		"password scram":   {"kafka://me:hunter2@HOST?auth_mechanism=scram-sha-256", fakeKafka{offers: []string{"SCRAM-SHA-256"}, refuse: wrongPassword}},
		"false server":     {"kafka://me:hunter2@HOST?auth_mechanism=scram-sha-256", fakeKafka{offers: []string{"SCRAM-SHA-256"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.fake.cluster, c.fake.brokers = "c", brokersAt()
			at := serve(t, nil, c.fake.talk)
			r := examine(t, strings.ReplaceAll(c.url, "HOST", at), Options{}, port(at, "PORT")...)
			if r.Status() != Fail || r.heals() {
				t.Errorf("status %s, heals %v", r.Status(), r.heals())
			}
		})
	}
}

func TestAMQPMechanisms(t *testing.T) {
	for _, head := range []string{"", "\x01\x00\x00", "\x01\x00\x00\x00\x00\x00\x10\x00\x0a\x00\x0a\x00\x09\xff\xff\xff\xff\xff\xff\xff\xff", "AMQP\x00\x00\x09\x01"} {
		if got := amqpMechanisms([]byte(head)); got != nil {
			t.Errorf("%q: %q", head, got)
		}
	}
}

func FuzzAMQPMechanisms(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x10\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN"))
	f.Fuzz(func(_ *testing.T, head []byte) { amqpMechanisms(head) }) // whatever comes, it doesn't panic
}
