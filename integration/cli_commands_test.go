package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// numbers is lines "0" to n-1.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// `consume | head -1` takes one message from the group; every other one is still there.
func TestCLIReaderLeaves(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		const n = 2000
		topic := cliTopic(t, b)
		cliOK(t, b.URL(), numbers(n), "publish", "--topic", topic, "--key", "k")
		first := cliHead(t, b.URL(), "consume", "--topic", topic, "--group", "default", "--quiet")
		if first != "0\n" {
			t.Fatalf("head printed %q", first)
		}
		rest := cliOK(t, b.URL(), "", "consume", "--topic", topic, "--group", "default", "-n", strconv.Itoa(n-1), "--timeout", "60s")
		seen := map[string]bool{}
		for _, line := range strings.Fields(rest) {
			seen[line] = true
		}
		if len(seen) != n-1 || seen["0"] {
			t.Errorf("%d of %d messages are left, the first among them: %v", len(seen), n-1, seen["0"])
		}
	})
}

// cliHead runs the command with `head -n 1` behind it.
func cliHead(t *testing.T, address string, args ...string) string {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	c, head := exec.CommandContext(t.Context(), file, args...), exec.CommandContext(t.Context(), "head", "-n", "1")
	c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
	c.Stdout, c.Stderr, head.Stdin, head.Stdout = w, &errs, r, &out
	for _, p := range []*exec.Cmd{head, c} {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	r.Close() //nolint:errcheck // theirs now
	w.Close() //nolint:errcheck // theirs now
	if err := head.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil || errs.Len() > 0 {
		t.Errorf("%v, %s: want success, and nothing said", err, &errs)
	}
	return out.String()
}

// Without a group Kafka is only looked at; RabbitMQ's queue is emptied, and that is said.
func TestCLIWithoutGroup(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		topic := cliTopic(t, b)
		cliOK(t, b.URL(), numbers(100), "publish", "--topic", topic, "--key", "k")
		r := cli(t, b.URL(), "", "consume", "--topic", topic)
		if r.code != 0 || r.out != numbers(100) {
			t.Errorf("%+v", r)
		}
		again, said := numbers(100), "nothing is committed"
		if b.Kind() == broker.AMQP {
			again, said = "", "removed from its queue once printed"
		}
		if !strings.Contains(r.err, said) {
			t.Errorf("standard error %q, want %q", r.err, said)
		}
		if r := cli(t, b.URL(), "", "consume", "--topic", topic, "--quiet"); r.code != 0 || r.out != again || r.err != "" {
			t.Errorf("again: %+v", r)
		}
	})
}

// The end is what was there at the start, in every partition; empty partitions and empty topics don't hold it up.
func TestCLIEnd(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	topic := cliName(t)
	cliOK(t, b.URL(), "", "topics", "declare", topic, "--partitions", "4")
	cliDeleteLater(t, b, topic)
	began := time.Now()
	if out := cliOK(t, b.URL(), "", "consume", "--topic", topic, "--idle", "1h"); out != "" {
		t.Errorf("got %q", out)
	}
	cliOK(t, b.URL(), numbers(10), "publish", "--topic", topic, "--partition", "2")
	cliOK(t, b.URL(), "last\n", "publish", "--topic", topic, "--partition", "0")
	for _, c := range []struct {
		args string
		want int
	}{{"", 11}, {"--from 5", 5}, {"--from 100", 0}, {"--group g", 11}, {"--group g", 0}} {
		out := cliOK(t, b.URL(), "", append([]string{"consume", "--topic", topic, "--idle", "1h"}, strings.Fields(c.args)...)...)
		if got := strings.Count(out, "\n"); got != c.want {
			t.Errorf("%s: %d messages, want %d", c.args, got, c.want)
		}
	}
	t.Logf("six times to the end in %v", time.Since(began))
}

// A copy from one kind of broker to the other and back is the original: key, headers, attributes, nil and empty.
func TestCLICopyBetweenBrokers(t *testing.T) {
	rabbit, kafka := broker.Require(t, broker.AMQP), broker.Require(t, broker.Kafka)
	topic := cliTopic(t, rabbit)
	cliOK(t, kafka.URL(), "", "topics", "declare", topic)
	cliDeleteLater(t, kafka, topic)
	// Times in whole milliseconds, which is what records of Kafka keep.
	const at = `"time":"2026-01-02T03:04:05.678Z"`
	records := []string{
		`{"topic":"T","key":"k","body":"plain","headers":[["b","2"],["a","1"],["b",""]],` + at + `,"id":"1"}`,
		`{"topic":"T","key":"","body":"",` + at + `,"id":"2","source":"s","type":"t","subject":"u","content_type":"text/plain","content_encoding":"identity","correlation_id":"c","reply_to":"r","audience":"a","priority":3}`,
		`{"topic":"T","key_base64":"/wA=","body":null,` + at + `,"id":"3"}`,
		`{"topic":"T","body_base64":"AP4=","headers":[["x",{"base64":"/w=="}]],` + at + `,"id":"4"}`,
	}
	want := strings.ReplaceAll(strings.Join(records, "\n")+"\n", `"T"`, strconv.Quote(topic))
	input := want
	for _, step := range []struct{ name, url string }{{"Kafka", kafka.URL()}, {"RabbitMQ", rabbit.URL()}} {
		cliOK(t, step.url, input, "publish", "--jsonl")
		input = cliOK(t, step.url, "", "consume", "--topic", topic, "--group", "default", "-n", "4", "--format", "json", "--quiet", "--timeout", "60s")
		var bare strings.Builder
		for line := range strings.Lines(input) {
			message, _, ok := strings.Cut(line, `,"position"`)
			if !ok {
				t.Fatalf("no position in %s", line)
			}
			bare.WriteString(message + "}\n")
		}
		// Messages of different keys have no order among them.
		got := strings.SplitAfter(bare.String(), "\n")
		slices.SortFunc(got, func(a, b string) int { return strings.Compare(cliID(a), cliID(b)) })
		if got := strings.Join(got, ""); got != want {
			t.Fatalf("after %s:\n%swant\n%s", step.name, got, want)
		}
	}
}

func cliID(record string) string {
	_, id, _ := strings.Cut(record, `"id":`)
	return id
}

const cliWrongPassword = "hunter2"

// Limits that a message can be over, which take their time.
func TestCLITooLarge(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		topic := cliTopic(t, b)
		for _, c := range []struct {
			name  string
			stdin string
			args  []string
			want  string
		}{
			{"a header key of 300 bytes", "", []string{"publish", "--topic", topic, "--header", strings.Repeat("h", 300) + "=x", "y"}, "1 to 255 bytes"},
			{"a body over the limit", strings.Repeat("x", 150<<20), []string{"publish", "--topic", topic, "--max-bytes", "999999999"}, "too large"},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := cli(t, b.URL(), c.stdin, c.args...)
				if r.code != 1 || r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, c.want) {
					t.Errorf("%+v, want exit code 1 and one line with %q", r, c.want)
				}
			})
		}
	})
}

// Output stays data: what was asked for, in order, nothing between.
func TestCLIFollow(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		topic := cliTopic(t, b)
		cliOK(t, b.URL(), numbers(1000), "publish", "--topic", topic, "--key", "k")
		out := cliOK(t, b.URL(), "", "consume", "--topic", topic, "--group", "g", "--create", "--follow", "--timeout", "3s", "--quiet")
		want := numbers(1000)
		if b.Kind() == broker.AMQP {
			want = "" // a new group begins empty
		}
		if out != want {
			t.Errorf("%d bytes, want %d", len(out), len(want))
		}
		r := cli(t, b.URL(), "", "consume", "--topic", topic, "--group", "g", "-n", "5", "--follow", "--timeout", "2s", "--quiet")
		if r.code != 3 || !strings.Contains(r.err, "0 of 5 messages: the --timeout is over") {
			t.Errorf("%+v", r)
		}
	})
}
