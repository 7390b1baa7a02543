// Package memory is a broker inside the process: the reference implementation of stagebus' interfaces, and a test double for
// programs that run on RabbitMQ or Kafka elsewhere. Everything that a stagebus broker can do, it can: all [stagebus.Capabilities]
// are true, so a test may turn to the Kafka-like or the RabbitMQ-like half alike.
//
// # Topics
//
// A topic is a log of one partition, unless [stagebus.TopicSpec] or [Options] say more. A message with a key goes to the partition
// that Kafka's Java client would choose (murmur2), one without a key to the next in turn. Sending to a topic that doesn't exist is
// [stagebus.ErrNoRoute], consuming one [stagebus.ErrNotFound], unless Create is set. "queue:NAME" and "topic:NAME" are topics of
// that full name.
//
// # Retention
//
// A topic holds at most Capacity messages and CapacityBytes bytes. A reader (a group, an Ephemeral or an Assigned consumer) holds
// what it has not settled, retries that are not due included; while the slowest reader holds that much, Submit waits within its
// context. A message that got no room in time was definitely not sent: its error wraps [stagebus.ErrRefused] and the
// context's error, never ErrUncertain. What all readers have settled, or what came before they
// began, stays for replay until the room is needed, oldest first. A topic that nobody has read yet holds everything.
//
// # Groups
//
// A group keeps a position for each partition: the prefix that is settled. Partitions are divided among its members and move
// as little as possible when one joins or leaves. A lane that is revoked drains: its member may settle for the rest of
// ConsumerOptions.Drain, then it is sealed, and the next member starts at the prefix; what had been delivered before comes with Redelivered
// set. As on Kafka, that includes messages settled behind one that was not. A position survives until its topic is deleted.
//
// Retries wait in logs that belong to the group, named as on Kafka ([stagebus.RetryTopic]) and divided like partitions. Dead
// letters go to [stagebus.DeadLetterTopic], which is made when needed. Retries of an Ephemeral or Assigned consumer end with it.
//
// # Memory
//
// A message's key, body and headers are copied when it is sent, since its outcome is known at once and the bytes are the
// sender's again. Receivers share that copy: as everywhere in stagebus, what is received is read-only.
//
// # Time
//
// There is no clock to inject and no goroutine that a broker would need: run a test in a bubble of testing/synctest, and retries
// and drains follow its clock.
package memory

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/urlparam"
)

// Options configure a broker. The zero value is usable; zero or less stands for the default of each number.
type Options struct {
	// Stack wraps every producer and consumer.
	Stack stagebus.Stack
	// Hook is told of assigned and revoked lanes, stale settlements, vanished topics, and Submits that wait for room.
	Hook stagebus.Hook
	// MaxMessage is the largest stagebus.Message.Size that is taken, in bytes: 16 MiB, the default of RabbitMQ 4.
	MaxMessage int
	// Partitions is how many a topic gets that doesn't say: 1. At most 10,000.
	Partitions int
	// Capacity is how many messages a topic holds that doesn't say: 65,536.
	Capacity int
	// CapacityBytes is how many bytes of messages each topic holds, at least one message: 256 MiB.
	CapacityBytes int
}

const (
	maxPartitions = 10_000 // a partition costs some hundred bytes, and a typo shouldn't cost gigabytes
	scheme        = "memory://"
)

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		p *int
		v int
	}{{&o.MaxMessage, 16 << 20}, {&o.Partitions, 1}, {&o.Capacity, 1 << 16}, {&o.CapacityBytes, 256 << 20}} {
		if *d.p <= 0 {
			*d.p = d.v
		}
	}
	o.Partitions = min(o.Partitions, maxPartitions)
	return o
}

// New returns a broker of its own, empty. It needs no connection and can't fail.
func New(o Options) *stagebus.Broker { return newBroker(newStore(), o, scheme, func() {}) }

// Open returns the broker that a URL names: "memory://" is a new one each time; "memory://NAME" is one broker for all of the
// process that open that name, empty at the first Open and gone after the last Close. Each handle has its own Options.
//
// The parameters partitions, capacity, capacity_bytes and max_message set the numbers of o. Anything else in the URL is a
// *[stagebus.InvalidError].
func Open(u *url.URL, o Options) (*stagebus.Broker, error) {
	if u.Scheme != "memory" || u.Opaque != "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.Fragment != "" {
		return nil, &stagebus.InvalidError{Field: "URL", Value: urlparam.Redact(u), Reason: "only memory:// and memory://NAME, with parameters"}
	}
	err := urlparam.Parse(u, urlparam.Set{
		"partitions":     urlparam.Int(&o.Partitions),
		"capacity":       urlparam.Int(&o.Capacity),
		"capacity_bytes": urlparam.Int(&o.CapacityBytes),
		"max_message":    urlparam.Int(&o.MaxMessage),
	})
	if err != nil {
		return nil, err
	}
	if o.Partitions > maxPartitions {
		return nil, tooManyPartitions(o.Partitions)
	}
	if u.Host == "" {
		return New(o), nil
	}
	s, release := shared.open(u.Host)
	return newBroker(s, o, scheme+u.Host, release), nil
}

// shared is the stores that have names, for as long as a handle is open.
var shared = registry{stores: map[string]*named{}}

type registry struct {
	mu     sync.Mutex // protects the following
	stores map[string]*named
}

type named struct {
	*store
	handles int
}

func (r *registry) open(name string) (*store, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.stores[name]
	if n == nil {
		n = &named{store: newStore()}
		r.stores[name] = n
	}
	n.handles++
	return n.store, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n.handles--; n.handles == 0 {
			delete(r.stores, name)
		}
	}
}

func newBroker(s *store, o Options, url string, release func()) *stagebus.Broker {
	d := &driver{store: s, o: o.withDefaults(), url: url, release: release}
	return stagebus.NewBroker(d, stagebus.BrokerOptions{Stack: o.Stack})
}

// driver is one handle on a store.
type driver struct {
	stagebus.UnimplementedDriver
	store   *store
	o       Options
	url     string
	release func()
	closed  atomic.Bool
}

// Capabilities implements [stagebus.Driver].
func (d *driver) Capabilities() stagebus.Capabilities {
	return stagebus.Capabilities{
		Replay: true, History: true, Partitions: true, KeyOrder: true, Transactions: true, Offsets: true, Tombstones: true,
		MaxMessage: d.o.MaxMessage,
	}
}

// Ping implements [stagebus.Driver].
func (d *driver) Ping(ctx context.Context) error {
	if d.closed.Load() {
		return d.fail("ping", "", stagebus.ErrClosed, nil, "open another broker")
	}
	return ctx.Err()
}

// Close implements [stagebus.Driver].
func (d *driver) Close(context.Context) error {
	if !d.closed.Swap(true) {
		d.release()
	}
	return nil
}

func (d *driver) fail(op, topic string, kind, cause error, do string) error {
	return &stagebus.Error{Op: op, Broker: d.url, Topic: topic, Kind: kind, Cause: cause, Do: do}
}

func (d *driver) missing(op, topic string, kind error) error {
	return d.fail(op, topic, kind, errors.New("the topic doesn't exist"), "declare it, or set Create (--create in the command)")
}

func (d *driver) noPartition(n int32, t *topic) error {
	return d.fail("send", t.name, stagebus.ErrNotFound, badPartition(n, len(t.partitions)), askPartitions)
}

const askPartitions = "ask Admin.Describe which there are"

func badPartition(n int32, of int) error {
	return errors.New("there is no partition " + itoa(n) + ", the topic has " + itoa(of))
}

func refuseNative(field string, native any) error {
	if native == nil {
		return nil
	}
	return &stagebus.InvalidError{Field: field + ".Native", Reason: "it is for another broker: memory has no options of its own"}
}

func tooManyPartitions(n int) error {
	return &stagebus.InvalidError{Field: "partitions", Value: itoa(n), Reason: "at most 10,000"}
}
