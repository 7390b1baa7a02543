// Package urlparam reads the parameters of a broker's URL the same way for every adapter: an unknown one is an error that names the
// nearest known one, and a password is never shown.
package urlparam

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/internal/nearest"
)

// Set is the known parameters, each with how to take its value.
type Set map[string]func(value string) error

// Parse takes every parameter of u's query by its entry in set. Errors are *stagebus.InvalidError.
func Parse(u *url.URL, set Set) error {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return &stagebus.InvalidError{Field: "URL", Value: Redact(u), Reason: err.Error()}
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		take, ok := set[name]
		if !ok {
			return &stagebus.InvalidError{Field: "URL parameter", Value: name, Reason: unknown(name, set)}
		}
		if len(q[name]) > 1 {
			return &stagebus.InvalidError{Field: "URL parameter", Value: name, Reason: "given twice"}
		}
		if err := take(q.Get(name)); err != nil {
			return &stagebus.InvalidError{Field: "URL parameter " + name, Value: q.Get(name), Reason: err.Error()}
		}
	}
	return nil
}

func unknown(name string, set Set) string {
	known := slices.Sorted(maps.Keys(set))
	if near := nearest.Of(name, known); near != "" {
		return fmt.Sprintf("unknown; did you mean %q?", near)
	}
	return "unknown; known are " + strings.Join(known, ", ")
}

// Redact returns u without credentials and query, for errors and events. What follows a scheme without "//" isn't shown at all: in
// "amqp:user:password@host" nothing tells the password from the rest.
func Redact(u *url.URL) string {
	c := *u
	c.User, c.Opaque, c.RawQuery, c.Fragment, c.RawFragment = nil, "", "", "", ""
	return c.String()
}

// String takes any value.
func String(p *string) func(string) error { return func(v string) error { *p = v; return nil } }

// Duration takes a Go duration such as "10s", positive.
func Duration(p *time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return fmt.Errorf("not a positive duration such as 10s or 1m30s")
		}
		*p = d
		return nil
	}
}

// Int takes a whole number, not negative.
func Int(p *int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return fmt.Errorf("not a whole number")
		}
		*p = n
		return nil
	}
}

// OneOf takes one of the values given.
func OneOf(p *string, values ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("not one of %s", strings.Join(values, ", "))
		}
		*p = v
		return nil
	}
}

// TLS are the parameters of an encrypted connection, named as in RabbitMQ's URI specification.
type TLS struct{ CA, Cert, Key, ServerName string }

// Params adds cacertfile, certfile, keyfile and server_name_indication to set.
func (t *TLS) Params(set Set) {
	set["cacertfile"], set["certfile"], set["keyfile"] = String(&t.CA), String(&t.Cert), String(&t.Key)
	set["server_name_indication"] = String(&t.ServerName)
}

// Config reads the files. Without CA the system's roots are trusted. TLS 1.2 is the least.
func (t *TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, &stagebus.InvalidError{Field: "URL parameter cacertfile", Value: t.CA, Reason: err.Error()}
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &stagebus.InvalidError{Field: "URL parameter cacertfile", Value: t.CA, Reason: "holds no PEM certificate"}
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, &stagebus.InvalidError{Field: "URL parameter", Value: "certfile, keyfile", Reason: "one without the other"}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, &stagebus.InvalidError{Field: "URL parameter certfile", Value: t.Cert, Reason: err.Error()}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
