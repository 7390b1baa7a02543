// Package adapters opens a broker of any kind from its URL, so that a program is configured for RabbitMQ, Kafka or memory by one
// string. Programs that use one kind only may import its package instead and spare the other clients.
package adapters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/internal/nearest"
)

// Options configure what a URL doesn't. The zero value is usable.
type Options struct {
	// Stack wraps every producer and consumer.
	Stack stagebus.Stack
	// Hook receives what happens inside the adapter.
	Hook stagebus.Hook
}

// pingTimeout bounds Open when its context has no deadline.
const pingTimeout = 30 * time.Second

var schemes = map[string]func(*url.URL, Options) (*stagebus.Broker, error){
	"memory": func(u *url.URL, o Options) (*stagebus.Broker, error) {
		return memory.Open(u, memory.Options{Stack: o.Stack, Hook: o.Hook})
	},
	"amqp": openAMQP, "amqps": openAMQP,
	"kafka": openKafka, "kafkas": openKafka,
}

func openAMQP(u *url.URL, o Options) (*stagebus.Broker, error) {
	a, err := amqp.ParseURL(u)
	if err != nil {
		return nil, err
	}
	a.Stack, a.Hook = o.Stack, o.Hook
	return amqp.New(a)
}

func openKafka(u *url.URL, o Options) (*stagebus.Broker, error) {
	k, err := kafka.ParseURL(u)
	if err != nil {
		return nil, err
	}
	k.Stack, k.Hook = o.Stack, o.Hook
	return kafka.New(k)
}

// Open returns the broker that a URL names, once it has answered a ping:
//
//	amqp://user:password@host:5672/vhost     RabbitMQ, amqps:// with TLS
//	kafka://host:9092,host:9092              Kafka, kafkas:// with TLS
//	memory:// and memory://NAME              inside the process
//
// The parameters after "?" are those of each adapter's ParseURL. The ping is bounded by ctx, or by 30 s if ctx has no deadline.
//
// A URL that can't be right is a *[stagebus.InvalidError], which names the nearest known scheme or parameter; a broker that can't be
// reached is [stagebus.ErrUnavailable], wrong credentials are [stagebus.ErrAuth]. No error shows the password. Nothing stays open after
// an error; the caller closes the Broker otherwise. Open is safe for concurrent use.
func Open(ctx context.Context, rawURL string, o Options) (*stagebus.Broker, error) {
	u, err := ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	b, err := schemes[u.Scheme](u, o)
	if err != nil {
		return nil, err
	}
	ping := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ping, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	if err := b.Ping(ping); err != nil {
		// The context has ended if the broker didn't answer: closing what never connected needs no patience.
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return nil, errors.Join(err, b.Close(shut))
	}
	return b, nil
}

// CheckURL returns what Open says of a URL that can't be right: nil, or a *[stagebus.InvalidError]. It connects to nothing, but reads the
// certificate files that the URL names.
func CheckURL(rawURL string) error {
	u, err := ParseURL(rawURL)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "amqp", "amqps":
		_, err = amqp.ParseURL(u)
	case "kafka", "kafkas":
		_, err = kafka.ParseURL(u)
	default:
		var b *stagebus.Broker
		if b, err = memory.Open(u, memory.Options{}); err == nil {
			err = b.Close(context.Background())
		}
	}
	return err
}

// ParseURL reads a URL as [Open] does, for programs that look at a broker beside its adapter. The scheme of what it returns is one
// that Open knows; the rest is for that adapter's own ParseURL. Errors are [stagebus.ErrInvalid] and show neither the URL nor a part of it:
// a password with a "/" in it looks like a port, and url.Parse quotes what it doesn't understand.
func ParseURL(raw string) (*url.URL, error) {
	known := slices.Sorted(maps.Keys(schemes))
	scheme, _, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, &stagebus.InvalidError{Field: "URL", Reason: "it begins with " + strings.Join(known, "://, ") + "://"}
	}
	if schemes[strings.ToLower(scheme)] == nil {
		if strings.ContainsAny(scheme, ":@/ ") { // it is no scheme, and may be anything
			scheme = ""
		}
		reason := "unknown; known are " + strings.Join(known, ", ")
		if near := nearest.Of(scheme, known); near != "" {
			reason = fmt.Sprintf("unknown; did you mean %q?", near)
		}
		return nil, &stagebus.InvalidError{Field: "URL scheme", Value: scheme, Reason: reason}
	}
	u, err := url.Parse(raw)
	if err != nil || broken(u) {
		return nil, &stagebus.InvalidError{
			Field: "URL", Value: scheme + "://…",
			Reason: "it is SCHEME://[USER:PASSWORD@]HOST[:PORT][/…], and special characters in the name and the password are written %XX (/ is %2F, @ is %40, % is %25)",
		}
	}
	return u, nil
}

// broken tells a password of which a slash, a question mark or a # cut off the beginning, which happens to be a port: in
// amqp://user:12/34@host the host would be "user", and the rest be shown as its virtual host.
func broken(u *url.URL) bool {
	parameter, _, _ := strings.Cut(u.RawQuery, "=")
	return u.User == nil && u.Port() != "" && strings.Contains(u.EscapedPath()+u.Fragment+parameter, "@")
}
