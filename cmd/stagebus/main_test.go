package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// childVar makes a process of this test binary the command itself, with a memory broker that holds that many messages: signals
// and pipes are a process's business.
const childVar = "STAGEBUS_TEST_CHILD"

func TestMain(m *testing.M) {
	if n := os.Getenv(childVar); n != "" {
		os.Exit(child(n))
	}
	os.Exit(m.Run())
}

// child runs the command line on memory://child and then says on standard error how many messages the default group has left.
func child(n string) int {
	b := openMemory("child")
	defer b.Close(context.Background()) //nolint:errcheck // memory
	count := 0
	if _, err := fmt.Sscan(n, &count); err != nil {
		return 99
	}
	if err := b.Admin().Declare(context.Background(), stagebus.TopicSpec{Name: "t"}); err != nil {
		return 98
	}
	for i := range count {
		if err := seed(b, stagebus.Message{Topic: "t", Body: fmt.Appendf(nil, "message %d", i)}); err != nil {
			return 97
		}
	}
	code := process(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, os.Getenv})
	info, err := b.Admin().Describe(context.Background(), "t")
	if err != nil {
		return 96
	}
	fmt.Fprintf(os.Stderr, "left %d\n", info.Groups[0].Depth)
	return code
}

// command returns the command as a process, not started.
func command(t *testing.T, messages int, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childVar, messages), "STAGEBUS_BROKER=memory://child",
		"GORACE=atexit_sleep_ms=0") // or each process ends a second later
	return c
}

func openMemory(name string) *stagebus.Broker {
	b, err := memory.Open(&url.URL{Scheme: "memory", Host: name}, memory.Options{})
	if err != nil {
		panic(err)
	}
	return b
}

func seed(b *stagebus.Broker, ms ...stagebus.Message) error {
	ctx := context.Background()
	p, err := b.Producer(ctx, stagebus.ProducerOptions{Create: true})
	if err != nil {
		return err
	}
	defer p.Close(ctx) //nolint:errcheck // memory
	return stagebus.Send(ctx, p, ms...)
}

// world is a memory broker that command lines of one test share.
type world struct {
	t   *testing.T
	b   *stagebus.Broker
	url string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name()))
	b := openMemory(name)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &world{t, b, "memory://" + name}
}

func (w *world) seed(ms ...stagebus.Message) {
	w.t.Helper()
	if err := seed(w.b, ms...); err != nil {
		w.t.Fatal(err)
	}
}

// seedBodies publishes one message for each body to topic t.
func (w *world) seedBodies(bodies ...string) {
	w.t.Helper()
	for _, b := range bodies {
		w.seed(stagebus.Message{Topic: "t", Body: []byte(b)})
	}
}

// depth is how many messages the group of topic t has not settled; -1 if it doesn't exist.
func (w *world) depth(group string) int64 {
	w.t.Helper()
	info, err := w.b.Admin().Describe(w.t.Context(), "t")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range info.Groups {
		if g.Name == group {
			return g.Depth
		}
	}
	return -1
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

func (w *world) run(stdin string, args ...string) result {
	w.t.Helper()
	return runWith(w.t.Context(), stdin, map[string]string{"STAGEBUS_BROKER": w.url}, args...)
}

func runWith(ctx context.Context, stdin string, env map[string]string, args ...string) result {
	var out, errs bytes.Buffer
	code := run(ctx, args, streams{strings.NewReader(stdin), &out, &errs, func(k string) string { return env[k] }})
	return result{code, out.String(), errs.String()}
}

// want checks a result; err is a part of standard error, "" for nothing at all.
func (r result) want(t *testing.T, code int, out, err string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if r.out != out {
		t.Errorf("standard output %q, want %q", r.out, out)
	}
	if !strings.Contains(r.err, err) || err == "" && r.err != "" {
		t.Errorf("standard error %q, want %q", r.err, err)
	}
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "stagebus: ") || !strings.HasSuffix(line, "\n") {
			t.Errorf("a line of standard error is not of the form \"stagebus: …\": %q", line)
		}
	}
	if t.Failed() {
		t.Logf("%+v", r)
	}
}

// buffer is a bytes.Buffer that tells when it holds something.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // capacity 1
}

func newBuffer() *buffer { return &buffer{changed: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until the buffer contains s.
func (b *buffer) await(t *testing.T, s string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(b.String(), s) {
		select {
		case <-b.changed:
		case <-limit:
			t.Fatalf("%q never came; there is %q", s, b.String())
		}
	}
}

// background runs a command line until stop is called, which is its first signal.
func (w *world) background(stdin *os.File, args ...string) (out, errs *buffer, stop func() int) {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(w.t.Context())
	out, errs = newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: out, err: errs, getenv: brokerAt(w.url)}
		if stdin != nil {
			s.in = stdin
		}
		code <- run(ctx, args, s)
	}()
	return out, errs, func() int {
		cancel(errInterrupted)
		return <-code
	}
}

// brokerAt is an environment that names a broker and nothing else.
func brokerAt(url string) func(string) string {
	return func(name string) string {
		if name == "STAGEBUS_BROKER" {
			return url
		}
		return ""
	}
}
