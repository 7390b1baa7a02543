package amqp

import (
	"net/url"
	"strings"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/urlparam"
)

// ParseURL returns the options that a URL of RabbitMQ's own URI specification stands for:
//
//	amqp://user:password@host:port,host2:port/vhost?parameters
//
// User, password and vhost are percent-decoded; without a vhost, or with an empty one, it is "/". amqps encrypts. Parameters: heartbeat and
// connection_timeout (durations such as 10s), auth_mechanism=plain|external, cacertfile, certfile, keyfile, server_name_indication, exchange,
// queue_type=quorum|classic, management=http://… Errors are [stagebus.ErrInvalid] and never show the password. It reads the
// certificate files, and nothing else.
func ParseURL(u *url.URL) (Options, error) {
	var o Options
	bad := func(reason string) (Options, error) {
		return Options{}, &stagebus.InvalidError{Field: "URL", Value: urlparam.Redact(u), Reason: reason}
	}
	if u.Scheme != "amqp" && u.Scheme != "amqps" {
		return bad("not amqp:// or amqps://")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return bad("not of the form amqp://user:password@host:port/vhost")
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if host == "" {
			if u.Host != "" {
				return bad("an empty host")
			}
			continue
		}
		o.Addresses = append(o.Addresses, host)
	}
	if u.User != nil {
		o.User = u.User.Username()
		o.Password, _ = u.User.Password()
	}
	escaped := strings.TrimPrefix(u.EscapedPath(), "/")
	if strings.Contains(escaped, "/") {
		return bad("a slash in the vhost's name is written %2F")
	}
	vhost, err := url.PathUnescape(escaped)
	if err != nil {
		return bad(err.Error())
	}
	o.Vhost = vhost

	var files urlparam.TLS
	var mechanism string
	set := urlparam.Set{
		"heartbeat":          urlparam.Duration(&o.Heartbeat),
		"connection_timeout": urlparam.Duration(&o.ConnectTimeout),
		"auth_mechanism":     urlparam.OneOf(&mechanism, "plain", "external"),
		"exchange":           urlparam.String(&o.Exchange),
		"queue_type":         urlparam.OneOf(&o.QueueType, quorum, classic),
		"management":         urlparam.String(&o.Management),
	}
	files.Params(set)
	if err := urlparam.Parse(u, set); err != nil {
		return Options{}, err
	}
	o.External = mechanism == "external"
	switch {
	case u.Scheme == "amqps":
		if o.TLS, err = files.Config(); err != nil {
			return Options{}, err
		}
	case files != urlparam.TLS{}:
		return bad("certificates need amqps://")
	case o.External:
		return bad("auth_mechanism=external needs amqps:// with certfile and keyfile")
	}
	if _, err := o.resolve(); err != nil {
		return Options{}, err
	}
	return o, nil
}
