package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// Members of one group, ours and another client's: the partitions are divided, and through joining and leaving on either side every message is
// handled once, by one of them.
func TestInteropKafkaGroup(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	test := func(t *testing.T, p peer, options ...string) {
		t.Parallel()
		bus := kafkaShared(t, nil)
		g := &mixedGroup{topic: kafkaTopic(t, bus, 6), group: mixedName(), bus: bus, more: make(chan struct{}, 1), seen: map[string]int{}}
		var err error
		if g.producer, err = bus.Producer(kafkaContext(t), stagebus.ProducerOptions{}); err != nil {
			t.Fatal(err)
		}
		ours := g.join(t)
		g.send(t, 300)
		g.await(t, "ours alone", 300)

		theirs := p.start(t, append([]string{"member", b.Addr(), g.topic, g.group}, options...)...)
		listening := g.listen(t, theirs)
		g.assigned(t, 3)
		g.send(t, 600)
		g.await(t, "both", 900)
		if g.ours == nil || g.theirs == nil || len(g.ours) != 3 || len(g.theirs) != 3 {
			t.Errorf("ours had partitions %v, theirs %v", g.ours, g.theirs)
		}
		for partition := range g.ours {
			if g.theirs[partition] {
				t.Errorf("partition %d had messages for both", partition)
			}
		}

		ours.leave(t)
		g.assigned(t, 6)
		g.send(t, 300)
		g.await(t, "theirs alone", 1200)

		ours = g.join(t)
		g.assigned(t, 3)
		theirs.end(t)
		<-listening
		g.send(t, 300)
		g.await(t, "ours alone again", 1500)
		ours.leave(t)

		info, err := bus.Admin().Describe(kafkaContext(t), g.topic)
		if err != nil || len(info.Groups) != 1 || info.Groups[0].Depth != 0 || info.Groups[0].Members != 0 {
			t.Errorf("all was committed by one or the other: %+v, %v", info.Groups, err)
		}
		for id, n := range g.seen {
			if n != 1 {
				t.Errorf("message %s was handled %d times", id, n)
			}
		}
	}
	eachPeer(t, kafkaPeers, func(t *testing.T, p peer) { test(t, p) })
	// What only their "sticky" knows how to divide is divided by ours as well, and the other way round.
	t.Run("kafka-clients-sticky", func(t *testing.T) {
		withKafkaJava.command(t)
		test(t, withKafkaJava, "partition.assignment.strategy=org.apache.kafka.clients.consumer.StickyAssignor")
	})
	// The protocol of Kafka 4, in which the broker divides: it has the two kinds of members in one group.
	t.Run("kafka-clients-consumer-protocol", func(t *testing.T) {
		if !kafkaHas(t, b, consumerGroupHeartbeat) {
			t.Skip("needs Kafka 4.0")
		}
		withKafkaJava.command(t)
		test(t, withKafkaJava, "group.protocol=consumer")
	})
}

// Where the others know only the cooperative protocol we can't join, and say so at once.
func TestInteropKafkaCooperative(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	withKafkaJava.command(t)
	bus := kafkaShared(t, nil)
	topic, group := kafkaTopic(t, bus, 2), mixedName()
	theirs := withKafkaJava.start(t, "member", b.Addr(), topic, group, "partition.assignment.strategy=org.apache.kafka.clients.consumer.CooperativeStickyAssignor")
	if line := theirs.next(t); line != `{"assigned":[0,1]}` {
		t.Fatal(line)
	}
	_, err := bus.Consumer(kafkaContext(t), stagebus.ConsumerOptions{Topics: []string{topic}, Group: group})
	if !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), "know neither range nor sticky") {
		t.Errorf("got %v", err)
	}
	theirs.end(t)
}

const consumerGroupHeartbeat = 68 // the request

// kafkaHas says whether the broker knows a request.
func kafkaHas(t *testing.T, b *broker.Broker, request int) bool {
	t.Helper()
	transport := &kgo.Transport{}
	defer transport.CloseIdleConnections()
	res, err := (&kgo.Client{Addr: kgo.TCP(b.Addr()), Transport: transport}).ApiVersions(kafkaContext(t), &kgo.ApiVersionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(res.ApiKeys, func(k kgo.ApiVersionsResponseApiKey) bool { return k.ApiKey == request })
}

// mixedName is a group of a test's own: those that run side by side would make one group of members that divide in different ways.
func mixedName() string { return fmt.Sprintf("mixed-%d", time.Now().UnixNano()) }

// mixedGroup counts what its members have handled.
type mixedGroup struct {
	topic    string
	group    string
	bus      *stagebus.Broker
	producer stagebus.Producer
	sent     int
	more     chan struct{} // capacity 1: something below has changed

	mu           sync.Mutex
	seen         map[string]int
	ours, theirs map[int32]bool // partitions that had messages since the last send
	has          int            // partitions that theirs said it was assigned
}

func (g *mixedGroup) change(f func()) {
	g.mu.Lock()
	f()
	g.mu.Unlock()
	select {
	case g.more <- struct{}{}:
	default:
	}
}

func (g *mixedGroup) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		g.mu.Lock()
		done := ok()
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-g.more:
		case <-ctx.Done():
			g.mu.Lock()
			defer g.mu.Unlock()
			t.Fatalf("%s: %d messages of %d, they have %d partitions; ours %v, theirs %v", what, len(g.seen), g.sent, g.has,
				slices.Sorted(maps.Keys(g.ours)), slices.Sorted(maps.Keys(g.theirs)))
		}
	}
}

func (g *mixedGroup) await(t *testing.T, when string, n int) {
	t.Helper()
	g.until(t, when, func() bool { return len(g.seen) == n })
}

func (g *mixedGroup) assigned(t *testing.T, n int) {
	t.Helper()
	g.until(t, fmt.Sprintf("assigned %d", n), func() bool { return g.has == n })
}

func (g *mixedGroup) send(t *testing.T, n int) {
	t.Helper()
	g.change(func() { g.ours, g.theirs = map[int32]bool{}, map[int32]bool{} })
	ms := make([]stagebus.Message, n)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: g.topic, Key: fmt.Appendf(nil, "k%d", i), Body: fmt.Append(nil, g.sent)}
		g.sent++
	}
	if err := stagebus.Send(kafkaContext(t), g.producer, ms...); err != nil {
		t.Fatal(err)
	}
}

// ourMember is a consumer of ours that settles what it receives.
type ourMember struct {
	c     stagebus.Consumer
	stop  context.CancelFunc
	ended chan error
}

func (g *mixedGroup) join(t *testing.T) *ourMember {
	t.Helper()
	c := kafkaConsumer(t, g.bus, stagebus.ConsumerOptions{Topics: []string{g.topic}, Group: g.group})
	ctx, cancel := context.WithCancel(t.Context())
	m := &ourMember{c, cancel, make(chan error, 1)}
	go func() {
		dst := make([]stagebus.Delivery, 50)
		for {
			n, err := c.Receive(ctx, dst)
			if err != nil {
				m.ended <- err
				return
			}
			for _, d := range dst[:n] {
				if err := c.Settle(ctx, stagebus.Done, d.Token); err != nil {
					m.ended <- err
					return
				}
				g.change(func() { g.seen[string(d.Body)]++; g.ours[d.Position.Partition] = true })
			}
		}
	}()
	return m
}

func (m *ourMember) leave(t *testing.T) {
	t.Helper()
	m.stop()
	if err := <-m.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("our member: %v", err)
	}
	if err := m.c.Close(kafkaContext(t)); err != nil {
		t.Errorf("our member: %v", err)
	}
}

// listen counts what the other member says, until it has ended.
func (g *mixedGroup) listen(t *testing.T, r *running) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		for line := range r.lines {
			var l kafkaLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Errorf("%s wrote %q: %v", r.name, line, err)
				return
			}
			g.change(func() {
				if l.Partition == nil {
					g.has = len(l.Assigned)
					return
				}
				g.seen[string(l.Value)]++
				g.theirs[*l.Partition] = true
			})
		}
	}()
	return done
}
