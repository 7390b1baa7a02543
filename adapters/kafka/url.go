package kafka

import (
	"crypto/tls"
	"net/url"
	"strings"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/urlparam"
)

// ParseURL reads kafka://[user:password@]host[:9092][,host…]/ and kafkas://, which is the same over TLS. Of several hosts all have
// a port or none has (net/url reads it that way). Parameters are
// auth_mechanism (plain, scram-sha-256 or scram-sha-512; plain if there is a user), client_id, connection_timeout,
// request_timeout, max_message, and for kafkas cacertfile, certfile, keyfile and server_name_indication. Errors are
// [stagebus.ErrInvalid] and never show the password. It reads the files named and connects to nothing.
func ParseURL(u *url.URL) (Options, error) {
	var o Options
	if u.Scheme != "kafka" && u.Scheme != "kafkas" {
		return o, &stagebus.InvalidError{Field: "URL scheme", Value: u.Scheme, Reason: "not kafka or kafkas"}
	}
	if strings.Trim(u.Path, "/") != "" {
		return o, &stagebus.InvalidError{Field: "URL", Value: urlparam.Redact(u), Reason: "a cluster has no path: name topics apart"}
	}
	if u.Host == "" {
		return o, &stagebus.InvalidError{Field: "URL", Value: urlparam.Redact(u), Reason: "no host"}
	}
	o.Brokers = strings.Split(u.Host, ",")

	var files urlparam.TLS
	set := urlparam.Set{
		"auth_mechanism":     urlparam.OneOf(&o.SASL.Mechanism, "plain", "scram-sha-256", "scram-sha-512"),
		"client_id":          urlparam.String(&o.ClientID),
		"connection_timeout": urlparam.Duration(&o.ConnectTimeout),
		"request_timeout":    urlparam.Duration(&o.RequestTimeout),
		"max_message":        urlparam.Int(&o.MaxMessage),
	}
	files.Params(set)
	if err := urlparam.Parse(u, set); err != nil {
		return o, err
	}

	o.SASL.User = u.User.Username()
	o.SASL.Password, _ = u.User.Password()
	if o.SASL.User != "" {
		setDefault(&o.SASL.Mechanism, "plain")
	}
	if o.SASL.Mechanism != "" && o.SASL.User == "" {
		return o, &stagebus.InvalidError{Field: "URL parameter auth_mechanism", Value: o.SASL.Mechanism, Reason: "needs user:password@ before the host"}
	}

	if u.Scheme == "kafkas" {
		var err error
		if o.TLS, err = files.Config(); err != nil {
			return o, err
		}
	} else if files != (urlparam.TLS{}) {
		return o, &stagebus.InvalidError{Field: "URL", Value: urlparam.Redact(u), Reason: "certificates are for kafkas://"}
	}
	return o.withDefaults()
}

// clone keeps the caller's configuration apart from ours.
func clone(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	return c.Clone()
}
