package kafka

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// The limits of a message. A broker takes batches of 1,048,588 bytes unless told otherwise; what a batch and a record add
// to a message with many headers stays below the allowance.
const (
	defaultBatch   = 1_048_588
	batchAllowance = 588
)

// Options configure a connection to a cluster. Only Brokers is needed.
type Options struct {
	// Brokers are some of the cluster's addresses, host:port; the port may be left out and is then 9092.
	Brokers []string
	// TLS encrypts connections when it is not nil. An empty ServerName is filled in with each broker's host.
	TLS *tls.Config
	// SASL authenticates when its Mechanism is not empty.
	SASL SASL
	// ClientID is shown in the broker's logs and quotas: "stagebus".
	ClientID string
	// ConnectTimeout bounds the making of one connection, with TLS and authentication: 5 s.
	ConnectTimeout time.Duration
	// RequestTimeout bounds one request of the adapter's own, other than waiting for messages or for a group: 15 s.
	RequestTimeout time.Duration
	// MaxMessage is the largest message in bytes: 1,048,000, what a broker with the default message.max.bytes takes.
	// Raise it when broker and topics allow more.
	MaxMessage int
	// Stack wraps every producer and consumer.
	Stack stagebus.Stack
	// Hook receives what happens inside the adapter.
	Hook stagebus.Hook
}

// SASL is a login. The zero value is none.
type SASL struct {
	Mechanism      string // "plain", "scram-sha-256" or "scram-sha-512"
	User, Password string
}

// ProducerOptions are the Native options of a producer.
type ProducerOptions struct {
	// BatchBytes bounds one batch of messages to one partition: 1,000,000, and never more than the largest message.
	BatchBytes int
	// UnsafeLeaderOnly asks for acks=1 instead of acks=all: a message counts as durable once the partition's leader has it, and is lost if the
	// leader fails before another broker has copied it, though its outcome said that it is there.
	UnsafeLeaderOnly bool
}

// Assignor says how the partitions of a topic are divided among the members of a group. All members must know one in
// common; those of this package know both, and the broker chooses the one that most prefer.
type Assignor string

const (
	// Range gives each member neighbouring partitions, the same ones of topics with equal numbers of them.
	Range Assignor = "range"
	// Sticky balances all partitions and moves as few as possible when members come and go.
	Sticky Assignor = "sticky"
)

// ConsumerOptions are the Native options of a consumer.
type ConsumerOptions struct {
	// InstanceID makes the member static: it keeps its partitions over a restart that is shorter than SessionTimeout.
	// It must be unique in the group; a second member with the same one ends the first.
	InstanceID string
	// Assignor is the preferred way to divide partitions: Range.
	Assignor Assignor
	// SessionTimeout is how long a member may be silent until its partitions go to others: 45 s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often a member is heard, and how soon it notices that another one joined: 500 ms.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long members have to rejoin: 60 s, at least the drain time and 5 s.
	RebalanceTimeout time.Duration
	// CommitInterval is how often settlements are made known to the broker: 1 s.
	CommitInterval time.Duration
	// MetadataInterval is how often new topics and partitions are looked for: 5 s.
	MetadataInterval time.Duration
	// MaxWait is how long a fetch waits at the broker for the first message: 500 ms.
	MaxWait time.Duration
	// FetchBytes bounds what one fetch brings for one partition: 1 MiB. A larger message comes all the same.
	FetchBytes int
}

func (o Options) withDefaults() (Options, error) {
	if len(o.Brokers) == 0 {
		return o, &stagebus.InvalidError{Field: "Options.Brokers", Reason: "name at least one, as host:port"}
	}
	brokers := make([]string, len(o.Brokers))
	for i, b := range o.Brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			host, port = strings.Trim(b, "[]"), "9092"
		}
		if host == "" || strings.ContainsAny(host, "/@,") {
			return o, &stagebus.InvalidError{Field: "Options.Brokers", Value: fmt.Sprintf("number %d", i+1), Reason: "not host:port"}
		}
		brokers[i] = net.JoinHostPort(host, port)
	}
	o.Brokers = brokers
	for _, n := range []int{int(o.ConnectTimeout), int(o.RequestTimeout), o.MaxMessage} {
		if n < 0 {
			return o, &stagebus.InvalidError{Field: "Options", Value: fmt.Sprint(n), Reason: "negative"}
		}
	}
	setDefault(&o.ClientID, "stagebus")
	setDefault(&o.ConnectTimeout, 5*time.Second)
	setDefault(&o.RequestTimeout, 15*time.Second)
	setDefault(&o.MaxMessage, defaultBatch-batchAllowance)
	return o, nil
}

// url is how errors and events name the cluster.
func (o Options) url() string {
	scheme := "kafka"
	if o.TLS != nil {
		scheme = "kafkas"
	}
	return (&url.URL{Scheme: scheme, Host: strings.Join(o.Brokers, ",")}).String()
}

func producerNative(native any, maxMessage int) (ProducerOptions, error) {
	var o ProducerOptions
	switch n := native.(type) {
	case nil:
	case ProducerOptions:
		o = n
	case *ProducerOptions:
		o = *n
	default:
		return o, &stagebus.InvalidError{Field: "ProducerOptions.Native", Value: fmt.Sprintf("%T", native), Reason: "this is Kafka: give a kafka.ProducerOptions"}
	}
	if o.BatchBytes < 0 {
		return o, &stagebus.InvalidError{Field: "kafka.ProducerOptions.BatchBytes", Value: fmt.Sprint(o.BatchBytes), Reason: "negative"}
	}
	setDefault(&o.BatchBytes, 1_000_000)
	o.BatchBytes = min(o.BatchBytes, maxMessage)
	return o, nil
}

func consumerNative(native any, drain time.Duration) (ConsumerOptions, error) {
	var o ConsumerOptions
	switch n := native.(type) {
	case nil:
	case ConsumerOptions:
		o = n
	case *ConsumerOptions:
		o = *n
	default:
		return o, &stagebus.InvalidError{Field: "ConsumerOptions.Native", Value: fmt.Sprintf("%T", native), Reason: "this is Kafka: give a kafka.ConsumerOptions"}
	}
	for _, n := range []int{int(o.SessionTimeout), int(o.HeartbeatInterval), int(o.RebalanceTimeout), int(o.CommitInterval),
		int(o.MetadataInterval), int(o.MaxWait), o.FetchBytes} {
		if n < 0 {
			return o, &stagebus.InvalidError{Field: "kafka.ConsumerOptions", Value: fmt.Sprint(n), Reason: "negative"}
		}
	}
	setDefault(&o.Assignor, Range)
	if o.Assignor != Range && o.Assignor != Sticky {
		return o, &stagebus.InvalidError{Field: "kafka.ConsumerOptions.Assignor", Value: string(o.Assignor), Reason: "not one of range, sticky"}
	}
	setDefault(&o.SessionTimeout, 45*time.Second)
	setDefault(&o.HeartbeatInterval, min(500*time.Millisecond, o.SessionTimeout/3))
	setDefault(&o.RebalanceTimeout, 60*time.Second)
	// A member that drains longer than the others wait would be put out of the group with its last settlements.
	o.RebalanceTimeout = max(o.RebalanceTimeout, drain+5*time.Second)
	setDefault(&o.CommitInterval, time.Second)
	setDefault(&o.MetadataInterval, 5*time.Second)
	setDefault(&o.MaxWait, 500*time.Millisecond)
	setDefault(&o.FetchBytes, 1<<20)
	if o.HeartbeatInterval >= o.SessionTimeout {
		return o, &stagebus.InvalidError{Field: "kafka.ConsumerOptions.HeartbeatInterval", Value: o.HeartbeatInterval.String(), Reason: "not shorter than SessionTimeout"}
	}
	return o, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
