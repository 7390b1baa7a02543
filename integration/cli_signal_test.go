package integration

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// cliConsumer is a consume that runs, and whose output is read by the test.
type cliConsumer struct {
	*exec.Cmd
	out  *bufio.Reader
	errs bytes.Buffer
}

func cliConsume(t *testing.T, b *broker.Broker, args ...string) *cliConsumer {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	c := &cliConsumer{Cmd: cliExec(file, b.URL(), append([]string{"consume"}, args...)...)}
	c.Stderr = &c.errs
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil { // the test has failed before its end
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	return c
}

// ended waits for the command, which a hang must not outlast.
func (c *cliConsumer) ended(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	case <-time.After(cliTimeout):
		_ = c.Process.Kill()
		t.Fatalf("it doesn't end: %s", &c.errs)
	}
	return c.ProcessState.ExitCode()
}

// The first interrupt ends a consume in order: what was printed is settled, and everything else comes again. A message that is in the pipe then
// and that its reader is slow to take may come again too, rather than be lost.
func TestCLIInterruptGivesBack(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		const n = 500
		topic := cliTopic(t, b)
		cliOK(t, b.URL(), numbers(n), "publish", "--topic", topic, "--key", "k")
		c := cliConsume(t, b, "--topic", topic, "--group", "default", "--follow")
		var printed []string
		for range 5 {
			line, err := c.out.ReadString('\n')
			if err != nil {
				t.Fatalf("%v: %s", err, &c.errs)
			}
			printed = append(printed, strings.TrimSpace(line))
		}
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(c.out)
		if err != nil {
			t.Fatal(err)
		}
		printed = append(printed, strings.Fields(string(rest))...)
		if code := c.ended(t); code != 0 || !strings.Contains(c.errs.String(), "stopped by a signal") {
			t.Errorf("exit code %d, %s: want success", code, &c.errs)
		}
		again := strings.Fields(cliOK(t, b.URL(), "", "consume", "--topic", topic, "--group", "default", "--idle", "3s"))
		last := printed[len(printed)-1]
		if len(again) > 0 && again[0] == last {
			t.Logf("%s, the last one printed, came again", last)
			again = again[1:]
		}
		if all := slices.Concat(printed, again); !slices.Equal(all, strings.Fields(numbers(n))) {
			t.Errorf("%d printed before, %d after: not each of %d once", len(printed), len(again), n)
		}
	})
}

// The second interrupt waits for nothing: here for a reader that doesn't read. Nothing is lost by it.
func TestCLISecondInterrupt(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		if b.Kind() == broker.Kafka && os.Getenv("STAGEBUS_LONG") == "" {
			t.Skip("Kafka takes 45 s to notice that a member is gone: set STAGEBUS_LONG")
		}
		const n = 5
		topic := cliTopic(t, b)
		cliOK(t, b.URL(), strings.Repeat(strings.Repeat("x", 200_000)+"\n", n), "publish", "--topic", topic, "--key", "k")
		c := cliConsume(t, b, "--topic", topic, "--group", "default", "--follow")
		if _, err := c.out.ReadByte(); err != nil { // it has begun to print what doesn't fit into a pipe
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _, _ = c.Process.Wait(); close(done) }()
		ticks := time.NewTicker(100 * time.Millisecond)
		defer ticks.Stop()
		limit := time.After(cliTimeout)
		for sent, ended := 0, false; !ended; {
			select {
			case <-done:
				ended = true
			case <-ticks.C:
				_ = c.Process.Signal(os.Interrupt) // fails if it ended meanwhile
				sent++
			case <-limit:
				t.Fatalf("%d interrupts were not enough", sent)
			}
		}
		again := cliOK(t, b.URL(), "", "consume", "--topic", topic, "--group", "default", "-n", strconv.Itoa(n), "--timeout", "80s")
		if got := strings.Count(again, "\n"); got != n {
			t.Errorf("%d of %d messages came again", got, n)
		}
	})
}
