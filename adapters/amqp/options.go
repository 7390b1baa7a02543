package amqp

import (
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagebus/stagebus"
)

// Options say where RabbitMQ is and how to use it. The zero value is guest at localhost:5672, virtual host "/".
type Options struct {
	// Addresses are those of the cluster's nodes, host:port each (port 5672, or 5671 with TLS, if left out). They are tried in random order.
	Addresses []string
	// Vhost is the virtual host; empty means "/".
	Vhost string
	// User and Password log in by SASL PLAIN; both empty mean guest, guest.
	User, Password string
	// External logs in by SASL EXTERNAL instead: the broker takes the user's name from the client certificate in TLS.
	External bool
	// TLS encrypts; nil doesn't. It is cloned; TLS 1.2 is the least, and an empty ServerName is the host of each address.
	TLS *tls.Config

	// Heartbeat is how often each side shows that it lives: 10 s. A dead peer is noticed after one and a half of it.
	Heartbeat time.Duration
	// ConnectTimeout bounds opening a connection, and how long a call waits for one: 10 s.
	ConnectTimeout time.Duration
	// Name is what the broker's own tools show for the connections: "stagebus".
	Name string

	// Exchange is the topic exchange that all topics share: "stagebus".
	Exchange string
	// QueueType is that of the queues that are declared here, "quorum" or "classic"; empty means quorum where the server has it.
	QueueType string

	// Management is the URL of the management API, which Admin needs to list topics; empty means http://HOST:15672 with
	// HOST of the first address. Without credentials of its own it gets User and Password.
	Management string

	// Stack wraps every producer and consumer.
	Stack stagebus.Stack
	// MaxMessage lowers the limit for a message's size below the server's default (16 MiB from 4.0 on, 128 MiB before).
	MaxMessage int
	// Hook learns what happens to connections and queues.
	Hook stagebus.Hook
}

// ProducerOptions are what only RabbitMQ has, for [stagebus.ProducerOptions.Native].
type ProducerOptions struct {
	// UnsafeTransient sends messages that a classic queue need not write to disk: a restart of the broker loses them, though their outcome
	// said that they are there. Quorum queues and streams write them all the same. What Retry and Reject copy is persistent again.
	UnsafeTransient bool
}

// ConsumerOptions are what only RabbitMQ has, for [stagebus.ConsumerOptions.Native].
type ConsumerOptions struct {
	// QueueType overrides Options.QueueType for queues that this consumer declares.
	QueueType string
}

// TopicSpec is what only RabbitMQ has, for [stagebus.TopicSpec.Native]. Where it is given, a queue that exists with other properties is
// [stagebus.ErrConflict]; without it, a queue that exists is fine as it is.
type TopicSpec struct {
	// QueueType overrides Options.QueueType.
	QueueType string
	// SingleActiveConsumer lets one consumer at a time have all messages of a queue, as [stagebus.ConsumerOptions.KeyOrder] needs.
	SingleActiveConsumer bool
}

const (
	quorum  = "quorum"
	classic = "classic"
)

// The limits of a connection's protocol, as opposed to those of options.
const (
	rpcTimeout   = 30 * time.Second // a request that gets no answer for so long has lost its connection
	writeTimeout = 30 * time.Second // so long a socket may take nothing at all
	maxShort     = 255              // bytes of a name on the wire
)

// New returns a Broker for RabbitMQ. It doesn't connect: the first producer, consumer or Ping does. Errors are [stagebus.ErrInvalid].
func New(o Options) (*stagebus.Broker, error) {
	d, err := newDriver(o)
	if err != nil {
		return nil, err
	}
	return stagebus.NewBroker(d, stagebus.BrokerOptions{Stack: o.Stack, MaxMessage: o.MaxMessage}), nil
}

func newDriver(o Options) (*driver, error) {
	c, err := o.resolve()
	if err != nil {
		return nil, err
	}
	d := &driver{config: c, groups: map[string]map[string]bool{}, queues: map[string]bool{}, declaring: make(chan struct{}, 1)}
	d.publish, d.consume = newLink(c), newLink(c)
	d.control = d.newPublisher(controlWindow, controlWindowBytes, 1)
	return d, nil
}

// Effective returns o as [New] uses it, with the defaults filled in, for programs that look at a broker beside the adapter. Errors are
// [stagebus.ErrInvalid].
func (o Options) Effective() (Options, error) {
	c, err := o.resolve()
	if err != nil {
		return Options{}, err
	}
	return c.Options, nil
}

// config is Options with defaults, checked, and what connections learn.
type config struct {
	Options
	display string       // the URL without credentials, for errors and events
	epochs  atomic.Int64 // numbers sessions
	server  atomic.Pointer[server]
}

func (o Options) resolve() (*config, error) {
	bad := func(field, value, reason string) (*config, error) {
		return nil, &stagebus.InvalidError{Field: "amqp.Options." + field, Value: value, Reason: reason}
	}
	switch {
	case o.Heartbeat < 0:
		return bad("Heartbeat", o.Heartbeat.String(), "negative")
	case o.Heartbeat > 0 && o.Heartbeat < time.Second:
		return bad("Heartbeat", o.Heartbeat.String(), "less than a second")
	case o.ConnectTimeout < 0:
		return bad("ConnectTimeout", o.ConnectTimeout.String(), "negative")
	case checkQueueType(o.QueueType) != nil:
		return bad("QueueType", o.QueueType, "quorum or classic")
	case o.External && o.TLS == nil:
		return bad("External", "true", "needs TLS with a client certificate")
	case len(o.Exchange) > maxShort || len(o.Vhost) > maxShort:
		return bad("Exchange, Vhost", "", "more than 255 bytes")
	case strings.HasPrefix(o.Exchange, "amq."):
		return bad("Exchange", o.Exchange, "names that start with amq. belong to the broker")
	}
	def(&o.Vhost, "/")
	def(&o.Heartbeat, 10*time.Second)
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.Name, "stagebus")
	def(&o.Exchange, "stagebus")
	if o.User == "" && o.Password == "" {
		o.User, o.Password = "guest", "guest"
	}
	port, scheme := "5672", "amqp"
	if o.TLS != nil {
		port, scheme = "5671", "amqps"
	}
	addresses := make([]string, 0, len(o.Addresses))
	for _, a := range o.Addresses {
		host, p, err := net.SplitHostPort(a)
		if err != nil {
			host, p = strings.Trim(a, "[]"), port
		}
		if host == "" || p == "" {
			return bad("Addresses", a, "not host:port")
		}
		addresses = append(addresses, net.JoinHostPort(host, p))
	}
	if len(addresses) == 0 {
		addresses = []string{net.JoinHostPort("localhost", port)}
	}
	o.Addresses = addresses
	if o.Management == "" {
		host, _, _ := net.SplitHostPort(addresses[0])
		o.Management = "http://" + net.JoinHostPort(host, "15672")
	}
	if u, err := url.Parse(o.Management); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return bad("Management", "", "not a URL such as http://host:15672") // the value may hold a password
	}
	path := "/"
	if o.Vhost != "/" {
		path += url.PathEscape(o.Vhost)
	}
	return &config{Options: o, display: scheme + "://" + strings.Join(addresses, ",") + path}, nil
}

func checkQueueType(t string) error {
	switch t {
	case "", quorum, classic:
		return nil
	}
	return &stagebus.InvalidError{Field: "queue type", Value: t, Reason: "quorum or classic"}
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// serverInfo is the newest connection's server, or what is assumed before the first.
func (c *config) serverInfo() server {
	if s := c.server.Load(); s != nil {
		return *s
	}
	return server{}
}
