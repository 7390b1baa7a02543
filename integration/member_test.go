package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/integration/broker"
)

// TestMembersKilledAndFrozen runs three members of one group as processes, kills one, freezes another past its time-out and lets it
// go on: nothing is lost, and what the frozen one settles too late neither skips nor rewinds anything.
func TestMembersKilledAndFrozen(t *testing.T) {
	for _, kind := range []broker.Kind{broker.Kafka, broker.AMQP} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			url := broker.Require(t, kind).URL()
			if kind == broker.AMQP {
				url += "?heartbeat=2s" // so that the broker takes a frozen connection for dead within seconds
			}
			g := newGroup(t, url)
			a, b, c := g.start(t), g.start(t), g.start(t)

			g.publish(t, 900)
			g.await(t, 900, "three members")
			if n := g.duplicates(); n != 0 {
				t.Errorf("%d duplicates without any fault", n)
			}

			a.signal(t, syscall.SIGKILL)
			g.publish(t, 900)
			g.await(t, 1800, "one member killed")
			killed := g.duplicates()

			b.signal(t, syscall.SIGSTOP)
			g.publish(t, 900)
			g.await(t, 2700, "one member frozen")

			b.signal(t, syscall.SIGCONT)
			g.publish(t, 900)
			g.await(t, 3600, "the frozen member came back")
			t.Logf("3600 messages; duplicates after the kill: %d, after the freeze: %d more", killed, g.duplicates()-killed)

			b.end(t)
			c.end(t)
			g.nothingIsLeft(t)
		})
	}
}

// group is a topic, its processes, and the IDs that they said they had handled.
type group struct {
	url, topic string
	bus        *stagebus.Broker
	producer   stagebus.Producer
	sent       int

	mu   sync.Mutex
	seen map[string]int
	more chan struct{} // capacity 1: something was seen
}

func newGroup(t *testing.T, url string) *group {
	bus, err := adapters.Open(t.Context(), url, adapters.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := &group{
		url: url, bus: bus, topic: fmt.Sprintf("members-%d", time.Now().UnixNano()),
		seen: map[string]int{}, more: make(chan struct{}, 1),
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(bus.Admin().Delete(ctx, g.topic), bus.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	spec := stagebus.TopicSpec{Name: g.topic, Groups: []string{memberGroup}}
	if bus.Capabilities().Partitions {
		spec.Partitions = 6
	}
	if err := bus.Admin().Declare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if g.producer, err = bus.Producer(t.Context(), stagebus.ProducerOptions{}); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *group) publish(t *testing.T, n int) {
	t.Helper()
	ms := make([]stagebus.Message, n)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: g.topic, Key: fmt.Appendf(nil, "k%d", i), ID: fmt.Sprint(g.sent)}
		g.sent++
	}
	if err := stagebus.Send(t.Context(), g.producer, ms...); err != nil {
		t.Fatal(err)
	}
}

func (g *group) await(t *testing.T, n int, when string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		g.mu.Lock()
		seen := len(g.seen)
		g.mu.Unlock()
		if seen >= n {
			return
		}
		select {
		case <-g.more:
		case <-deadline:
			t.Fatalf("%s: %d of %d messages were handled", when, seen, n)
		}
	}
}

func (g *group) duplicates() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, times := range g.seen {
		n += times - 1
	}
	return n
}

// nothingIsLeft opens the group once more: the first message it gets must be one that is sent now.
func (g *group) nothingIsLeft(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := g.bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{g.topic}, Group: memberGroup})
	if err != nil {
		t.Fatal(err)
	}
	marks := 12 // one for each partition, twice
	ms := make([]stagebus.Message, marks)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: g.topic, ID: "mark"}
		if g.bus.Capabilities().Partitions {
			ms[i].Partition = stagebus.At(int32(i % 6))
		}
	}
	if err := stagebus.Send(ctx, g.producer, ms...); err != nil {
		t.Fatal(err)
	}
	for item, err := range stagebus.All(ctx, c) {
		if err != nil {
			t.Fatal(err)
		}
		if item.ID != "mark" {
			t.Errorf("message %s comes again though it was settled", item.ID)
			continue
		}
		if marks--; marks == 0 {
			break
		}
	}
}

// member is a process that consumes.
type member struct {
	cmd  *exec.Cmd
	read chan struct{} // closed when its output has ended
}

func (g *group) start(t *testing.T) *member {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envMember+"="+g.url, envMemberTopic+"="+g.topic)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &member{cmd: cmd, read: make(chan struct{})}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		<-m.read
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if first, err := lines.ReadString('\n'); err != nil || first != memberReady+"\n" {
		t.Fatalf("member: %q, %v", first, err)
	}
	go func() {
		defer close(m.read)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return // a cut line was not handled
			}
			g.mu.Lock()
			g.seen[strings.TrimSuffix(line, "\n")]++
			g.mu.Unlock()
			select {
			case g.more <- struct{}{}:
			default:
			}
		}
	}()
	return m
}

func (m *member) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end asks the member to close in order.
func (m *member) end(t *testing.T) {
	t.Helper()
	m.signal(t, syscall.SIGTERM)
	<-m.read
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("member: %v", err)
	}
}

const (
	envMember      = "STAGEBUS_TEST_MEMBER"
	envMemberTopic = "STAGEBUS_TEST_MEMBER_TOPIC"
	memberGroup    = "members"
	memberReady    = "ready"
)

// runMember is the child process: it prints the ID of each message, then settles it.
func runMember(url string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := consumeAsMember(ctx, url); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		return 1
	}
	return 0
}

func consumeAsMember(ctx context.Context, url string) error {
	bus, err := adapters.Open(ctx, url, adapters.Options{})
	if err != nil {
		return err
	}
	o := stagebus.ConsumerOptions{Topics: []string{os.Getenv(envMemberTopic)}, Group: memberGroup, Prefetch: 50}
	if strings.HasPrefix(url, "kafka") {
		o.Native = kafka.ConsumerOptions{SessionTimeout: 6 * time.Second}
	}
	c, err := bus.Consumer(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println(memberReady)
	dst := make([]stagebus.Delivery, 10)
	for {
		n, err := c.Receive(ctx, dst)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		for i := range dst[:n] {
			fmt.Println(dst[i].ID)
			if err := c.Settle(ctx, stagebus.Done, dst[i].Token); err != nil && !errors.Is(err, stagebus.ErrStale) {
				return err
			}
		}
	}
	closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return bus.Close(closing)
}
