package adaptertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// moment is how long the suite looks for what must not happen, where no marker can be sent behind it. A fault that has the
// message at hand shows at once; one that doesn't is not made by a longer look.
const moment = 100 * time.Millisecond

// shortDrain is the drain time of consumers that are closed with open deliveries on purpose.
const shortDrain = 50 * time.Millisecond

// env is what a case runs in: the test, a handle on the broker, and the ways to use it that fail the test by themselves.
type env struct {
	testing.TB
	h       Harness
	caps    stagebus.Capabilities
	b       *stagebus.Broker
	name    string
	suffix  string // of the names of groups: on Kafka a group is one for all topics, also those of other tests
	markers atomic.Int64
}

func newEnv(t testing.TB, h Harness, name string) *env {
	t.Helper()
	if h.Patience <= 0 {
		h.Patience = 20 * time.Second
	}
	e := &env{TB: t, h: h, name: name, suffix: "-" + unique()}
	e.b = e.open(stagebus.BrokerOptions{Stack: h.stack})
	if err := e.b.Ping(e.ctx()); err != nil {
		t.Fatalf("the broker doesn't answer: %v", err)
	}
	e.caps = e.b.Capabilities()
	return e
}

// open returns a handle that is closed with the test.
func (e *env) open(o stagebus.BrokerOptions) *stagebus.Broker {
	e.Helper()
	b := e.h.Open(e.TB, o)
	e.Cleanup(func() { e.closeIt("broker", b.Close) })
	return b
}

// ctx bounds one thing that must happen.
func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), e.h.Patience)
	e.Cleanup(cancel)
	return ctx
}

func (e *env) closeIt(what string, f func(context.Context) error) {
	e.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), e.h.Patience)
	defer cancel()
	if err := f(ctx); err != nil {
		e.Errorf("close %s: %v", what, err)
	}
}

// await waits for ch to be closed or to yield.
func (e *env) await(ch <-chan struct{}, what string) {
	e.Helper()
	timer := time.NewTimer(e.h.Patience)
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
		e.Fatalf("%s: not within %v", what, e.h.Patience)
	}
}

// eventually polls what a broker reports about itself, which may lag behind what it does.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	timeout, tick := time.NewTimer(e.h.Patience), time.NewTicker(10*time.Millisecond)
	defer timeout.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout.C:
			e.Fatalf("%s: not within %v", what, e.h.Patience)
		}
	}
}

// unused returns the name of a topic that doesn't exist, and sees to it that it is gone after the test, with what may have been derived
// from it for the groups.
func (e *env) unused(groups ...string) string {
	name := topicName(e.name) + "." + unique()
	e.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), e.h.Patience)
		defer cancel()
		names := []string{name, stagebus.DeadLetterTopic(name, "")}
		for _, g := range groups {
			names = append(names, stagebus.DeadLetterTopic(name, g))
		}
		for _, n := range names {
			if err := e.b.Admin().Delete(ctx, n); err != nil && !errors.Is(err, stagebus.ErrNotFound) {
				e.Errorf("delete %s: %v", n, err)
			}
		}
	})
	return name
}

func unique() string { return strings.ToLower(rand.Text()[:10]) }

// group returns the name of a group of the test's own.
func (e *env) group(name string) string { return name + e.suffix }

// topic declares a topic of its own for the test, with one partition, or one lane where there are none.
func (e *env) topic(groups ...string) string {
	e.Helper()
	return e.topicOf(1, groups...)
}

// topicOf declares a topic with n partitions, where there are partitions.
func (e *env) topicOf(n int, groups ...string) string {
	e.Helper()
	name := e.unused(groups...)
	e.declare(e.spec(name, n, groups...))
	return name
}

func (e *env) spec(name string, partitions int, groups ...string) stagebus.TopicSpec {
	s := stagebus.TopicSpec{Name: name, Groups: groups}
	if e.caps.Partitions {
		s.Partitions = partitions
	}
	if e.h.Topic != nil {
		e.h.Topic(&s)
	}
	return s
}

func (e *env) declare(s stagebus.TopicSpec) {
	e.Helper()
	if err := e.b.Admin().Declare(e.ctx(), s); err != nil {
		e.Fatalf("declare %s: %v", s.Name, err)
	}
}

func (e *env) producer() stagebus.Producer {
	e.Helper()
	return e.producerOf(e.b, stagebus.ProducerOptions{})
}

// producerOf opens a producer that is closed with the test.
func (e *env) producerOf(b *stagebus.Broker, o stagebus.ProducerOptions) stagebus.Producer {
	e.Helper()
	if e.h.Producer != nil {
		e.h.Producer(&o)
	}
	p, err := b.Producer(e.ctx(), o)
	if err != nil {
		e.Fatalf("open a producer: %v", err)
	}
	e.Cleanup(func() { e.closeIt("producer", p.Close) })
	return p
}

func (e *env) consumer(topic, group string) stagebus.Consumer {
	e.Helper()
	return e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Group: group})
}

// consumerOf opens a consumer that is closed with the test.
func (e *env) consumerOf(b *stagebus.Broker, o stagebus.ConsumerOptions) stagebus.Consumer {
	e.Helper()
	c, err := e.tryConsumer(b, o)
	if err != nil {
		e.Fatalf("open a consumer of %v: %v", o.Topics, err)
	}
	e.Cleanup(func() { e.closeIt("consumer", c.Close) })
	return c
}

func (e *env) tryConsumer(b *stagebus.Broker, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	if o.Drain == 0 {
		o.Drain = shortDrain
	}
	if e.h.Consumer != nil {
		e.h.Consumer(&o)
	}
	return b.Consumer(e.ctx(), o)
}

// send sends and fails the test unless all are durable.
func (e *env) send(p stagebus.Producer, ms ...stagebus.Message) {
	e.Helper()
	if err := stagebus.Send(e.ctx(), p, ms...); err != nil {
		e.Fatalf("send: %v", err)
	}
}

// sendTexts sends one message for each body.
func (e *env) sendTexts(p stagebus.Producer, topic string, bodies ...string) {
	e.Helper()
	e.send(p, texts(topic, bodies...)...)
}

func texts(topic string, bodies ...string) []stagebus.Message {
	ms := make([]stagebus.Message, len(bodies))
	for i, b := range bodies {
		ms[i] = stagebus.Message{Topic: topic, Body: []byte(b)}
	}
	return ms
}

// numbered returns n bodies, prefix0, prefix1…
func numbered(prefix string, n int) []string {
	bs := make([]string, n)
	for i := range bs {
		bs[i] = fmt.Sprint(prefix, i)
	}
	return bs
}

// receive receives n deliveries and fails the test if they don't come or can't be read.
func (e *env) receive(c stagebus.Consumer, n int) []stagebus.Delivery {
	e.Helper()
	ds := e.receiveRaw(c, n)
	for i := range ds {
		if ds[i].Err != nil {
			e.Fatalf("delivery %d of %d: %v", i+1, n, ds[i].Err)
		}
	}
	return ds
}

// receiveRaw is receive for deliveries that may carry an error.
func (e *env) receiveRaw(c stagebus.Consumer, n int) []stagebus.Delivery {
	e.Helper()
	ctx := e.ctx()
	var ds []stagebus.Delivery
	for len(ds) < n {
		dst := make([]stagebus.Delivery, n-len(ds))
		k, err := c.Receive(ctx, dst)
		if err == nil && (k < 1 || k > len(dst)) {
			e.Fatalf("Receive returned %d deliveries for a dst of %d", k, len(dst))
		}
		ds = append(ds, dst[:k]...)
		if err != nil {
			e.Fatalf("received %d of %d deliveries: %v; so far %s", len(ds), n, err, bodies(ds))
		}
	}
	return ds
}

// settle settles and fails the test if it can't.
func (e *env) settle(c stagebus.Consumer, v stagebus.Verdict, ds ...stagebus.Delivery) {
	e.Helper()
	if err := c.Settle(e.ctx(), v, tokens(ds)...); err != nil {
		e.Fatalf("settle %s of %s: %v", verdict(v), bodies(ds), err)
	}
}

// take receives n deliveries, settles them with Done and returns their bodies.
func (e *env) take(c stagebus.Consumer, n int) []string {
	e.Helper()
	ds := e.receive(c, n)
	e.settle(c, stagebus.Done, ds...)
	bs := make([]string, len(ds))
	for i := range ds {
		bs[i] = string(ds[i].Body)
	}
	return bs
}

// flush fails the test if Flush does.
func (e *env) flush(c stagebus.Consumer) {
	e.Helper()
	if err := c.Flush(e.ctx()); err != nil {
		e.Fatalf("flush: %v", err)
	}
}

// nothingBefore sends a marker to a topic of one lane and fails the test if c gets anything before it. It settles the marker.
func (e *env) nothingBefore(p stagebus.Producer, c stagebus.Consumer, topic, why string) {
	e.Helper()
	marker := fmt.Sprintf("marker %d", e.markers.Add(1))
	e.sendTexts(p, topic, marker)
	d := e.receiveRaw(c, 1)[0]
	if string(d.Body) != marker {
		e.Fatalf("%s: got %s before the marker that was sent last", why, describe(&d))
	}
	e.settle(c, stagebus.Done, d)
}

// quiet fails the test if c has a delivery at hand. It is for what no marker can follow.
func (e *env) quiet(c stagebus.Consumer, why string) {
	e.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	dst := make([]stagebus.Delivery, 1)
	n, err := c.Receive(ctx, dst)
	if n > 0 {
		e.Fatalf("%s: got %s", why, describe(&dst[0]))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		e.Fatalf("%s: Receive returned %v when its context ended, not the context's error", why, err)
	}
}

// wantBatch checks that err is a *BatchError with an entry for each of want, each errors.Is the one wanted (nil for none).
func (e *env) wantBatch(err error, what string, want ...error) {
	e.Helper()
	be, ok := errors.AsType[*stagebus.BatchError](err)
	if !ok {
		e.Fatalf("%s: got %v (%T), want a *stagebus.BatchError", what, err, err)
	}
	if len(be.Errs) != len(want) {
		e.Fatalf("%s: %d errors for %d entries: %v", what, len(be.Errs), len(want), err)
	}
	for i, w := range want {
		if got := be.Errs[i]; !errors.Is(got, w) {
			e.Errorf("%s: entry %d is %v, want %v", what, i, got, w)
		}
	}
}

// want checks that err is one of a kind.
func (e *env) want(err error, what string, kind error) {
	e.Helper()
	if !errors.Is(err, kind) {
		e.Fatalf("%s: got %v, want %v", what, err, kind)
	}
}
