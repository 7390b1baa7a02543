package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// benchReport is what these tests read of a report, by the names that other programs use.
type benchReport struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Run     string `json:"run"`
	Brokers []struct {
		URL     string `json:"url"`
		Server  string `json:"server"`
		Storage string `json:"storage"`
	} `json:"brokers"`
	Interrupted bool `json:"interrupted"`
	Rows        []struct {
		Broker int        `json:"broker"`
		Size   int        `json:"size"`
		Load   string     `json:"load"`
		Median benchRound `json:"median"`
		Rounds []struct {
			Messages int64          `json:"messages"`
			Unsent   int64          `json:"unsent"`
			Counts   map[string]any `json:"counts"`
		} `json:"rounds"`
	} `json:"rows"`
}

type benchRound struct {
	PerSecond float64 `json:"messages_per_second"`
	Latency   *struct {
		P50 int64 `json:"p50_ns"`
		P99 int64 `json:"p99_ns"`
	} `json:"latency"`
	CPU *float64 `json:"cpu_ns_per_message"`
}

// bench runs the command and checks that all that was confirmed arrived once, in order.
func bench(t *testing.T, address string, args ...string) benchReport {
	t.Helper()
	out := cliOK(t, address, "", append([]string{"bench", "--output", "json", "--warmup", "100ms"}, args...)...)
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Format != "stagebus-bench" || r.Version != 1 || len(r.Rows) == 0 {
		t.Fatalf("%+v", r)
	}
	for _, row := range r.Rows {
		for _, round := range row.Rounds {
			for _, zero := range []string{"failed", "uncertain", "lost", "duplicate", "out_of_order", "foreign"} {
				if n := round.Counts[zero]; n != 0.0 {
					t.Errorf("%s, %d B: %v %s", row.Load, row.Size, n, zero)
				}
			}
			if round.Messages == 0 || round.Unsent != 0 {
				t.Errorf("%s, %d B: %+v", row.Load, row.Size, round)
			}
		}
		m := row.Median
		if m.PerSecond <= 0 || (m.Latency == nil) != (row.Load == "max") || m.Latency != nil && (m.Latency.P50 <= 0 || m.Latency.P99 < m.Latency.P50) {
			t.Errorf("%s, %d B: %+v", row.Load, row.Size, m)
		}
		t.Logf("broker %d, %d B, %s: %.0f messages/s, latency %+v", row.Broker, row.Size, row.Load, m.PerSecond, m.Latency)
	}
	return r
}

func TestBenchModes(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		for _, c := range []struct {
			args string
			rows int
		}{
			{"publish --count 2000 --size 100,1KB", 4},
			{"consume --count 2000", 1},
			{"both --count 1000 --producers 2", 2},
			{"both --rate 500 --duration 1s", 1},
			{"request --rate 200 --duration 1s --durability unsafe", 1},
		} {
			t.Run(c.args, func(t *testing.T) {
				r := bench(t, b.URL(), strings.Fields(c.args)...)
				if len(r.Rows) != c.rows {
					t.Errorf("%d rows, want %d", len(r.Rows), c.rows)
				}
				if s := r.Brokers[0].Server; !strings.HasPrefix(s, "RabbitMQ ") && s != "Kafka" {
					t.Errorf("the server is %q", s)
				}
				if strings.Contains(r.Brokers[0].URL, "@") {
					t.Errorf("credentials are shown: %s", r.Brokers[0].URL)
				}
			})
		}
	})
}

func TestBenchCompare(t *testing.T) {
	rabbit, kafka := broker.Require(t, broker.AMQP), broker.Require(t, broker.Kafka)
	r := bench(t, "", "both", "--compare", rabbit.URL(), kafka.URL(), "--rounds", "2", "--count", "1000")
	if len(r.Brokers) != 2 || len(r.Rows) != 4 || len(r.Rows[0].Rounds) != 2 || r.Brokers[0].Storage != "quorum queue" || r.Brokers[1].Storage != "4 partitions" {
		t.Errorf("%+v", r)
	}
	text := cliOK(t, "", "", "bench", "publish", "--compare", rabbit.URL(), kafka.URL(), "--rounds", "1", "--count", "500", "--warmup", "0")
	for _, want := range []string{"A RabbitMQ", "B Kafka", "B/A", "p99.9"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
}

// Interrupted, it says what it has measured and leaves no topic behind.
func TestBenchInterrupted(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		file, err := cliBinary()
		if err != nil {
			t.Fatal(err)
		}
		address := b.URL()
		if m, ok := b.Management(); ok { // which lists topics
			address += "?management=" + url.QueryEscape(m)
		}
		ctx, cancel := context.WithTimeout(t.Context(), cliTimeout)
		defer cancel()
		c := exec.CommandContext(ctx, file, "bench", "--rate", "300", "--duration", "300ms", "--warmup", "0", "--rounds", "1000", "--output", "json")
		c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
		var out strings.Builder
		c.Stdout = &out
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stderr)
		for lines.Scan() && !strings.Contains(lines.Text(), "3 of 1000: ") {
		}
		if err := c.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // until it ends, or it couldn't write
		}
		_ = c.Wait() // the exit code says it
		var r benchReport
		if err := json.Unmarshal([]byte(out.String()), &r); err != nil || c.ProcessState.ExitCode() != 1 || !r.Interrupted || len(r.Rows) == 0 || r.Run == "" {
			t.Fatalf("%v, exit code %d: %s", err, c.ProcessState.ExitCode(), &out)
		}
		if topics := cliOK(t, address, "", "topics", "list"); strings.Contains(topics, "stagebus-bench."+r.Run) {
			t.Errorf("topics of run %s are left: %s", r.Run, topics)
		}
	})
}

// A broker that stands still for two seconds makes all messages late that were due meanwhile, and none is lost.
func TestBenchSeesAStall(t *testing.T) {
	const rate, stall = 200, 2 * time.Second
	i := broker.Private(t, broker.AMQP)
	topic := cliTopic(t, &i.Broker)
	bus := amqpOpen(t, amqpOptions(t, &i.Broker))
	c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Prefetch: rate})
	ctx := amqpContext(t)
	stalled := make(chan error, 1)
	go func() {
		stalled <- func() error {
			dst := make([]stagebus.Delivery, rate)
			for n := 0; n < rate; { // the default group has a copy of what is sent
				k, err := c.Receive(ctx, dst)
				if err != nil {
					return err
				}
				n += k
			}
			if err := i.Pause(ctx); err != nil {
				return err
			}
			<-time.After(stall) // this is what is to be measured, nothing is waited for
			return i.Resume(ctx)
		}()
	}()
	r := bench(t, i.URL(), "both", "--topic", topic, "--rate", fmt.Sprint(rate), "--duration", "6s")
	if err := <-stalled; err != nil {
		t.Fatal(err)
	}
	if l := r.Rows[0].Median.Latency; l == nil || l.P99 < int64(stall/2) || l.P50 > l.P99/2 {
		t.Errorf("%+v: want a p99 near %v, since a third of the messages was due meanwhile", l, stall)
	}
}
