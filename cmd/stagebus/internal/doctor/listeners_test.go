package doctor

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol/metadata"
)

func serverTLS(a *authority) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.issue("server", -time.Hour, 100*24*time.Hour, "127.0.0.1", "broker.example.org")}}
}

// The addresses that a cluster sends its clients to aren't what was typed, or don't lead there.
func TestListeners(t *testing.T) {
	ours := &fakeKafka{cluster: "ours"}
	theirs := &fakeKafka{cluster: "theirs", brokers: brokersAt()}
	secret := &fakeKafka{cluster: "ours", offers: []string{"PLAIN"}, brokers: brokersAt()}
	at, other, locked := serve(t, nil, ours.talk), serve(t, nil, theirs.talk), serve(t, nil, secret.talk)
	names := map[string][]string{
		"broker.example.org": {"192.0.2.7"}, "two.example.org": {"192.0.2.8"}, "localhost": {"127.0.0.1"},
	}
	routes := map[string]string{
		"192.0.2.7:9092": at, "192.0.2.8:9092": at, "127.0.0.1:9092": at, "127.0.0.1:9999": "refused", "192.0.2.8:9999": "refused",
		"127.0.0.1:9094": other, "127.0.0.1:9095": locked,
	}
	for name, c := range map[string]struct {
		url       string
		addresses []string
		status    Status
	}{
		"as typed":           {"kafka://127.0.0.1:9092", []string{"127.0.0.1:9092"}, OK},
		"another name":       {"kafka://127.0.0.1:9092", []string{"localhost:9092"}, OK},
		"service":            {"kafka://localhost:9092", []string{"kafka:19092"}, Fail},
		"refused":            {"kafka://localhost:9092", []string{"localhost:9999"}, Fail},
		"second":             {"kafka://broker.example.org:9092", []string{"broker.example.org:9092", "two.example.org:9999"}, Fail},
		"both one":           {"kafka://broker.example.org:9092", []string{"broker.example.org:9092", "broker.example.org:9092"}, Fail},
		"loopback elsewhere": {"kafka://broker.example.org:9092", []string{"localhost:9999"}, Fail},
		"loopback works":     {"kafka://broker.example.org:9092", []string{"localhost:9092"}, Warn},
		"another cluster":    {"kafka://broker.example.org:9092", []string{"localhost:9094"}, Fail},
		"locked":             {"kafka://localhost:9092", []string{"localhost:9095"}, Fail},
		"none":               {"kafka://localhost:9092", nil, Fail},
	} {
		t.Run(name, func(t *testing.T) {
			ours.brokers = brokersAt(c.addresses...)
			r := examine(t, c.url, Options{ReadOnly: true, world: network{names, routes}.world()})
			if r.Status() != c.status {
				t.Errorf("status %s", r.Status())
			}
		})
	}
}

func TestListenersTLS(t *testing.T) {
	a := newAuthority(t, "Test CA")
	kafka := &fakeKafka{cluster: "c", offers: []string{"PLAIN"}}
	at := serve(t, serverTLS(a), kafka.talk)
	w := network{map[string][]string{"broker.example.org": {"192.0.2.7"}, "other.example.org": {"192.0.2.7"}}, map[string]string{"192.0.2.7:9093": at}}.world()
	kafka.brokers = func() []metadata.ResponseBroker {
		return []metadata.ResponseBroker{{NodeID: 3, Host: "other.example.org", Port: 9093}}
	}
	r := examine(t, "kafkas://me:hunter2@broker.example.org:9093?cacertfile="+a.file, Options{ReadOnly: true, world: w})
	if r.Status() != Fail {
		t.Error(r.Status())
	}
}
