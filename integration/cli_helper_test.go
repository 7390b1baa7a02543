package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// The peers' clients that share queues with us.
var cliPeers = []string{"pika==1.4.4", "kafka-python==3.0.12"}

// cliBinary builds the command once.
var cliBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "stagebus-test", fmt.Sprintf("stagebus-%d", os.Getuid()))
	build := exec.Command("go", "build", "-o", file, "./cmd/stagebus")
	build.Dir = ".." // the module that has its dependencies
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// errNoPython says that the machine can't run the peers' clients.
var errNoPython = errors.New("python3 with venv is missing: apt-get install python3-venv")

// cliPython makes a virtual environment with the peers once, for all runs on this machine, and returns its interpreter.
var cliPython = sync.OnceValues(func() (string, error) {
	if exec.Command("python3", "-c", "import ensurepip, venv").Run() != nil {
		return "", errNoPython
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "stagebus-test")
	home := filepath.Join(cache, "venv-"+strings.ReplaceAll(strings.Join(cliPeers, "-"), "==", "-"))
	python := filepath.Join("bin", "python")
	if exec.Command(filepath.Join(home, python), "-c", "import pika, kafka").Run() == nil {
		return filepath.Join(home, python), nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// Beside its place first: a run that breaks off, or another at the same time, leaves no half of one.
	fresh, err := os.MkdirTemp(cache, "venv-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // a directory of ours
	for _, args := range [][]string{
		{"python3", "-m", "venv", fresh},
		append([]string{filepath.Join(fresh, python), "-m", "pip", "install", "--quiet"}, cliPeers...),
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	if err := os.RemoveAll(home); err != nil {
		return "", err
	}
	return filepath.Join(home, python), os.Rename(fresh, home)
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

// python runs a program with the peers' clients and returns its standard output.
func python(t *testing.T, program, stdin string, args ...string) string {
	t.Helper()
	file, err := cliPython()
	if errors.Is(err, errNoPython) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := cliRun(t, stdin, os.Environ(), file, append([]string{"-c", program}, args...)...)
	if r.code != 0 {
		t.Fatalf("python: %+v", r)
	}
	return r.out
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
	if m, ok := b.Management(); ok { // or groups that other processes made would stay
		address += "?management=" + url.QueryEscape(m)
	}
	t.Cleanup(func() {
		c := exec.Command(file, "topics", "delete", "--yes", topic)
		c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
		if out, err := c.CombinedOutput(); err != nil && !strings.Contains(string(out), "not found") {
			t.Errorf("delete %s: %v: %s", topic, err, out)
		}
	})
}
