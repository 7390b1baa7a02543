package amqp

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func parse1(t *testing.T, raw string) (Options, error) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return ParseURL(u)
}

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url       string
		addresses []string // resolved
		vhost     string   // resolved
		user      string
		password  string
	}{
		{"amqp://", []string{"localhost:5672"}, "/", "guest", "guest"},
		{"amqp://h", []string{"h:5672"}, "/", "guest", "guest"},
		{"amqp://h:1/", []string{"h:1"}, "/", "guest", "guest"},
		{"amqp://h/%2f", []string{"h:5672"}, "/", "guest", "guest"},
		{"amqp://h/v%2Fw", []string{"h:5672"}, "v/w", "guest", "guest"},
		{"amqp://u:p%3A%40%2F@h/v", []string{"h:5672"}, "v", "u", "p:@/"},
		{"amqp://u@h", []string{"h:5672"}, "/", "u", ""},
		{"amqp://a:1,b:2", []string{"a:1", "b:2"}, "/", "guest", "guest"},
		{"amqp://[::1]:7/", []string{"[::1]:7"}, "/", "guest", "guest"},
		{"amqp://[::1]", []string{"[::1]:5672"}, "/", "guest", "guest"},
		{"amqps://h", []string{"h:5671"}, "/", "guest", "guest"},
	} {
		o, err := parse1(t, c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		r, err := o.resolve()
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if e, err := o.Effective(); err != nil || !slices.Equal(e.Addresses, c.addresses) || e.User != c.user || e.Vhost != c.vhost {
			t.Errorf("%s: effective %+v, %v", c.url, e, err)
		}
		if !slices.Equal(r.Addresses, c.addresses) || r.Vhost != c.vhost || r.User != c.user || r.Password != c.password {
			t.Errorf("%s: %v %q %q %q", c.url, r.Addresses, r.Vhost, r.User, r.Password)
		}
	}
}

func TestParseURLParameters(t *testing.T) {
	o, err := parse1(t, "amqps://h?heartbeat=3s&connection_timeout=4s&exchange=x&queue_type=quorum&management=https%3A%2F%2Fm%3A15671&auth_mechanism=external&server_name_indication=broker")
	if err != nil {
		t.Fatal(err)
	}
	if o.Heartbeat != 3*time.Second || o.ConnectTimeout != 4*time.Second || o.Exchange != "x" || o.QueueType != quorum ||
		o.Management != "https://m:15671" || !o.External || o.TLS == nil || o.TLS.ServerName != "broker" {
		t.Errorf("%+v", o)
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"kafka://h":                         "not amqp",
		"amqp:h":                            "not of the form",
		"amqp://h/a/b":                      "%2F",
		"amqp://a,,b":                       "empty host",
		"amqp://h#f":                        "not of the form",
		"amqp://h?heartbeat=often":          "duration",
		"amqp://h?heartbeat=10ms":           "less than a second",
		"amqp://h?queue_type=stream":        "quorum",
		"amqp://h?hearbeat=3s":              `"heartbeat"`,
		"amqp://h?cacertfile=x":             "amqps",
		"amqp://h?auth_mechanism=external":  "amqps",
		"amqps://h?cacertfile=/no/file":     "cacertfile",
		"amqps://h?certfile=c":              "without the other",
		"amqp://h?exchange=amq.topic":       "amq.",
		"amqp://h?management=ftp%3A%2F%2Fx": "Management",
	} {
		_, err := parse1(t, strings.Replace(raw, "://", "://u:topsecret@", 1))
		if !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestOptionsRefuse(t *testing.T) {
	for name, o := range map[string]Options{
		"negative heartbeat": {Heartbeat: -1},
		"negative time-out":  {ConnectTimeout: -1},
		"stream":             {QueueType: "stream"},
		"external, no TLS":   {External: true},
		"long exchange":      {Exchange: strings.Repeat("x", 256)},
		"no host":            {Addresses: []string{":5672"}},
	} {
		if _, err := New(o); !errors.Is(err, stagebus.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The URL that errors and events show has no credentials.
func TestDisplay(t *testing.T) {
	c, err := Options{Addresses: []string{"a", "b:1"}, User: "u", Password: "topsecret", Vhost: "v/w"}.resolve()
	if err != nil || c.display != "amqp://a:5672,b:1/v%2Fw" {
		t.Errorf("%q, %v", c.display, err)
	}
}
