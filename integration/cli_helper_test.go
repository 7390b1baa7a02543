package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// cliTimeout bounds one command, so that a hang is a failure.
const cliTimeout = 90 * time.Second

// cliBinary builds the command once.
var cliBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	source, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	// One for each work tree: tests of two at the same time must not run each other's.
	file := filepath.Join(dir, "stagebus-test", fmt.Sprintf("stagebus-%d-%08x", os.Getuid(), crc32.ChecksumIEEE([]byte(source))))
	build := exec.Command("go", "build", "-o", file, "./cmd/stagebus")
	build.Dir = ".." // the module that has its dependencies
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// cliResult is what a command did.
type cliResult struct {
	code     int
	out, err string
}

// cli runs the command against a broker, whose URL is in its environment.
func cli(t *testing.T, address, stdin string, args ...string) cliResult {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	return cliRun(t, stdin, append(os.Environ(), "STAGEBUS_BROKER="+address), file, args...)
}

// cliExec is the command as a process, not started.
func cliExec(file, address string, args ...string) *exec.Cmd {
	c := exec.Command(file, args...)
	c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
	return c
}

// cliOK is cli for a command that succeeds; it returns its standard output.
func cliOK(t *testing.T, address, stdin string, args ...string) string {
	t.Helper()
	r := cli(t, address, stdin, args...)
	if r.code != 0 {
		t.Fatalf("stagebus %v: %+v", args, r)
	}
	return r.out
}

func cliRun(t *testing.T, stdin string, env []string, name string, args ...string) cliResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cliTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr, c.Env = strings.NewReader(stdin), &out, &errs, env
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %v: %v, %v: %s", name, args, err, context.Cause(ctx), &errs)
	}
	return cliResult{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// eachBroker runs f on RabbitMQ and on Kafka.
func eachBroker(t *testing.T, f func(t *testing.T, b *broker.Broker)) {
	for _, k := range []broker.Kind{broker.AMQP, broker.Kafka} {
		t.Run(string(k), func(t *testing.T) { f(t, broker.Require(t, k)) })
	}
}

// cliTopic returns a name of its own for a test's topic, declared, and deletes it afterwards.
func cliTopic(t *testing.T, b *broker.Broker) string {
	t.Helper()
	topic := cliName(t)
	cliOK(t, b.URL(), "", "topics", "declare", topic)
	cliDeleteLater(t, b, topic)
	return topic
}

// cliName returns a name that no other test and no other run has.
func cliName(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("cli.%s.%d", strings.NewReplacer("/", ".", "_", "-", "#", "").Replace(t.Name()), time.Now().UnixNano())
}

func cliDeleteLater(t *testing.T, b *broker.Broker, topic string) {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	address := b.URL()
	if m, ok := b.Management(); ok && b.Kind() == broker.AMQP { // or groups that other processes made would stay
		address += "?management=" + url.QueryEscape(m)
	}
	t.Cleanup(func() {
		if out, err := cliExec(file, address, "topics", "delete", "--yes", topic).CombinedOutput(); err != nil && !strings.Contains(string(out), "not found") {
			t.Errorf("delete %s: %v: %s", topic, err, out)
		}
	})
}

// watched is a buffer for what a process writes, which can be waited for.
type watched struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // capacity 1
}

func newWatched() *watched { return &watched{changed: make(chan struct{}, 1)} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return w.b.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// await waits until s has been written.
func (w *watched) await(t *testing.T, s string) {
	t.Helper()
	limit := time.After(cliTimeout)
	for !strings.Contains(w.String(), s) {
		select {
		case <-w.changed:
		case <-limit:
			t.Fatalf("%q never came; there is %q", s, w)
		}
	}
}
