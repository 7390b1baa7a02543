package kafka

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func TestParseURL(t *testing.T) {
	u, err := url.Parse("kafka://me:secret@h1:9093,h2:9092/?auth_mechanism=scram-sha-512&client_id=x&connection_timeout=3s&max_message=2000000")
	if err != nil {
		t.Fatal(err)
	}
	o, err := ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.Brokers, []string{"h1:9093", "h2:9092"}) || o.SASL != (SASL{"scram-sha-512", "me", "secret"}) ||
		o.ClientID != "x" || o.ConnectTimeout != 3*time.Second || o.MaxMessage != 2_000_000 || o.TLS != nil {
		t.Errorf("got %+v", o)
	}
	if shown := o.url(); strings.Contains(shown, "secret") || shown != "kafka://h1:9093,h2:9092" {
		t.Errorf("shown as %s", shown)
	}
	u, _ = url.Parse("kafkas://me:secret@h1?server_name_indication=other")
	if o, err = ParseURL(u); err != nil || o.SASL.Mechanism != "plain" || o.TLS == nil || o.TLS.ServerName != "other" {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, says := range map[string]string{
		"http://h":                       "scheme",
		"kafka://":                       "no host",
		"kafka://h/topic":                "path",
		"kafka://h?auth_mechanisn=plain": `"auth_mechanism"`,
		"kafka://u:secret@h?auth_mechanism=gssapi":         "scram-sha-256",
		"kafka://h?auth_mechanism=plain":                   "user",
		"kafka://u:secret@h?cacertfile=/nowhere":           "kafkas",
		"kafkas://u:secret@h?cacertfile=/nowhere":          "cacertfile",
		"kafka://u:secret@h?connection_timeout=3":          "duration",
		"kafka://u:secret@h1,,h2":                          "host:port",
		"kafkas://u:secret@h?certfile=a":                   "keyfile",
		"kafka://u:secret@h?client_id=a&client_id=b":       "twice",
		"kafka://u:secret@h?max_message=-1":                "number",
		"kafka://u:secret@h?request_timeout=-1s":           "duration",
		"kafkas://u:secret@h?certfile=/none&keyfile=/none": "certfile",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		_, err = ParseURL(u)
		if !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want one that says %q and not the password", raw, err, says)
		}
	}
}

func TestNativeOptionsOfAnotherAdapterAreRefused(t *testing.T) {
	if _, err := producerNative(struct{}{}, 1); !errors.Is(err, stagebus.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := consumerNative(ProducerOptions{}, 0); !errors.Is(err, stagebus.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := consumerNative(ConsumerOptions{Assignor: "best"}, 0); !errors.Is(err, stagebus.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	o, err := consumerNative(&ConsumerOptions{RebalanceTimeout: time.Second}, 10*time.Second)
	if err != nil || o.RebalanceTimeout < 15*time.Second {
		t.Errorf("members who drain for 10 s need longer than %v to come back (%v)", o.RebalanceTimeout, err)
	}
}
