// Package adaptertest is the law of stagebus: one conformance suite that every adapter passes, so that a stage behaves the
// same on RabbitMQ, Kafka and memory. Whoever writes an adapter calls [Run] from a test of its package:
//
//	func TestLaw(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Harness{Open: func(t testing.TB, o stagebus.BrokerOptions) *stagebus.Broker { … }})
//	}
//
// The suite sees the adapter through *stagebus.Broker only, as its users do. Loss, duplicates and order are counted exactly,
// per message: without faults none may be lost, none may come twice, and a key never goes back. What an adapter can't do it
// says in its [stagebus.Capabilities]; the suite checks these true and false alike: a case for what is missing asserts that
// it is refused with [stagebus.ErrUnsupported].
//
// The suite never sleeps to see that nothing happens. Where it must know that no further message comes it sends a marker
// behind and receives that. It is itself tested: each of a set of faulty adapters must fail its named case (see the
// package's tests).
package adaptertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// Harness is what the suite needs to know of an adapter. Only Open is required. It is not modified by the suite.
type Harness struct {
	// Open returns a new handle on the broker under test; all handles of one harness reach the same broker. It fails the
	// test if it can't. The suite closes what it gets. It may be called concurrently.
	Open func(testing.TB, stagebus.BrokerOptions) *stagebus.Broker

	// Patience is how long something that must happen may take until it counts as missing: 20 s.
	Patience time.Duration

	// Topic, Producer and Consumer, where set, change what the suite is about to ask of the broker: the type of a queue in
	// Native, the replication of a topic in Config. They must not change what the case is about. They may be called concurrently.
	Topic    func(*stagebus.TopicSpec)
	Producer func(*stagebus.ProducerOptions)
	Consumer func(*stagebus.ConsumerOptions)

	// Expect, if set, is what Broker.Capabilities must return once connected.
	Expect *stagebus.Capabilities

	// Capacity says that TopicSpec.Capacity bounds a topic: Submit waits while it is full.
	Capacity bool
	// Revokes says that lanes move when members of a group come and go, as the partitions of Kafka do. The suite then
	// waits for lanes to drain where it would otherwise only see that nothing comes twice.
	Revokes bool

	// Linger is how long goroutines may outlive Broker.Close: those of a client library that offers no way to wait for
	// them. Zero is right for an adapter that owns all of its goroutines.
	Linger time.Duration
	// Foreign are parts of stacks of goroutines that belong to others, such as a broker that runs in the test's process.
	Foreign []string
	// Allocs is the budget of allocations per message for send, receive and settle together, in batches of 256 messages of
	// 1 KiB. Zero checks nothing.
	Allocs float64

	stack stagebus.Stack // see WithStack
}

// Case is one case of the suite.
type Case struct {
	// Name is the case's name within the suite, such as "retry/delay", and that of its subtest.
	Name string
	// Proves says what an adapter that passes does right.
	Proves string
	// Needs reports whether the broker can do what the case is about; nil is always. Where it returns false, Run asserts
	// the refusal instead.
	Needs func(stagebus.Capabilities) bool

	run     func(*env)
	refused func(*env) // instead of run where Needs is false; always set if Needs is
	alone   bool       // looks at the whole process
}

// Run runs all cases against an adapter, each as a subtest of its name. Those that look at the whole process (goroutines, allocations)
// run first, one by one; the others run in parallel, so t must not be parallel itself.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if !c.alone {
				t.Parallel()
			}
			c.Run(t, h)
		})
	}
}

// Run runs the case in t. It uses t's methods from several goroutines, FailNow and the like only from the one that called.
func (c Case) Run(t testing.TB, h Harness) {
	t.Helper()
	e := newEnv(t, h, c.Name)
	if c.Needs == nil || c.Needs(e.caps) {
		c.run(e)
		return
	}
	c.refused(e)
}

// Cases returns all cases, in the order of the suite.
func Cases() []Case {
	return slices.Concat(fidelityCases, headerCases, refuseCases, sendCases, sendCloseCases, receiveCases, startCases, settleCases,
		closeCases, groupCases, retryCases, rejectCases, countCases, stackCases, txCases, adminCases, processCases)
}

// Find returns the case of that name.
func Find(name string) (Case, bool) {
	i := slices.IndexFunc(Cases(), func(c Case) bool { return c.Name == name })
	if i < 0 {
		return Case{}, false
	}
	return Cases()[i], true
}

// topicName turns a case's name into the words of a topic.
func topicName(name string) string { return "law." + strings.ReplaceAll(name, "/", ".") }
