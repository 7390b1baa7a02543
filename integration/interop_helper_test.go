package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stagebus/stagebus"
)

// peer is another client: a program that uses it as its own tutorial does, driven by lines of JSON. peers/python/lines.py tells their form.
type peer struct {
	name    string
	command func(t *testing.T) []string // the program, without its arguments
}

var (
	withPika     = pythonPeer("pika", "with_pika.py")
	withAioPika  = pythonPeer("aio-pika", "with_aio_pika.py")
	withAMQPJava = javaPeer("amqp-client", "AmqpPeer")

	withKafkaPython = pythonPeer("kafka-python", "with_kafka_python.py")
	withConfluent   = pythonPeer("confluent-kafka", "with_confluent_kafka.py")
	withKafkaJava   = javaPeer("kafka-clients", "KafkaPeer")
)

func pythonPeer(name, file string) peer {
	return peer{name, func(t *testing.T) []string {
		return []string{need(t, cliPython), filepath.Join("peers", "python", file)}
	}}
}

func javaPeer(name, class string) peer {
	return peer{name, func(t *testing.T) []string {
		home := need(t, javaPeers)
		path := filepath.Join(home, "classes") + string(os.PathListSeparator) + filepath.Join(home, "libs", "*")
		// Programs that live for a second: no time to optimise them.
		return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", path, class}
	}}
}

// errNoPeer says that the machine lacks what a peer runs on.
var errNoPeer = errors.New("not on this machine; make test installs it on Debian")

// need returns what get gets, skips the test where the machine can't have it, and fails where that goes wrong.
func need(t *testing.T, get func() (string, error)) string {
	t.Helper()
	s, err := get()
	if errors.Is(err, errNoPeer) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// needCommand skips the test where a command is missing.
func needCommand(t *testing.T, name string) {
	t.Helper()
	need(t, func() (string, error) { return lookPath(name) })
}

func lookPath(name string) (string, error) {
	file, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, errNoPeer)
	}
	return file, nil
}

// built returns a folder that build has filled once for all runs on this machine, and again when one of the files from which it is built changes.
func built(name string, sources []string, build func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	for _, source := range sources {
		b, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		_, _ = hash.Write(fmt.Appendf(nil, "%s %d\n%s", source, len(b), b)) // never fails
	}
	cache = filepath.Join(cache, "stagebus-test")
	home := filepath.Join(cache, fmt.Sprintf("%s-%x", name, hash.Sum(nil)[:8]))
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// Beside its place first: a run that breaks off, or another at the same time, leaves no half of one.
	fresh, err := os.MkdirTemp(cache, name+"-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // a directory of ours
	if err := build(fresh); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, home); err != nil {
		if _, there := os.Stat(home); there != nil {
			return "", err
		}
	}
	return home, nil
}

func runAll(commands ...[]string) error {
	for _, args := range commands {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return nil
}

// cliPython makes a virtual environment with the Python clients and returns its interpreter.
var cliPython = sync.OnceValues(func() (string, error) {
	if exec.Command("python3", "-c", "import ensurepip, venv").Run() != nil {
		return "", fmt.Errorf("python3 with venv: %w", errNoPeer)
	}
	requirements := filepath.Join("peers", "python", "requirements.txt")
	home, err := built("venv", []string{requirements}, func(dir string) error {
		python := filepath.Join(dir, "bin", "python")
		return runAll([]string{"python3", "-m", "venv", dir}, []string{python, "-m", "pip", "install", "--quiet", "-r", requirements})
	})
	return filepath.Join(home, "bin", "python"), err
})

// javaPeers fetches the Java clients, compiles the programs that use them, and returns the folder with both.
var javaPeers = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"java", "javac", "mvn"} {
		if _, err := lookPath(name); err != nil {
			return "", err
		}
	}
	sources, err := filepath.Glob(filepath.Join("peers", "java", "*.java"))
	if err != nil {
		return "", err
	}
	pom := filepath.Join("peers", "java", "pom.xml")
	return built("java", append(sources, pom), func(dir string) error {
		libs := filepath.Join(dir, "libs")
		return runAll(
			[]string{"mvn", "-q", "-B", "-f", pom, "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=" + libs},
			append([]string{"javac", "-d", filepath.Join(dir, "classes"), "-cp", filepath.Join(libs, "*")}, sources...))
	})
})

// peerEnviron keeps Python from leaving compiled files in the source tree.
func peerEnviron() []string { return append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1") }

// run runs the peer to its end and returns its standard output.
func (p peer) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := p.try(t, stdin, args...)
	if r.code != 0 {
		t.Fatalf("%s %v: %+v", p.name, args, r)
	}
	return r.out
}

func (p peer) try(t *testing.T, stdin string, args ...string) cliResult {
	t.Helper()
	argv := append(p.command(t), args...)
	return cliRun(t, stdin, peerEnviron(), argv[0], argv[1:]...)
}

// publish has the peer send what lines say.
func publishLines[L any](t *testing.T, p peer, lines []L, args ...string) {
	t.Helper()
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, line := range lines {
		if err := enc.Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	p.run(t, in.String(), append([]string{"publish"}, args...)...)
}

// consumeLines has the peer receive as many messages.
func consumeLines[L any](t *testing.T, p peer, n int, args ...string) []L {
	t.Helper()
	out := p.run(t, "", append(append([]string{"consume"}, args...), fmt.Sprint(n))...)
	var lines []L
	for line := range strings.Lines(out) {
		var l L
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s wrote %.200q: %v", p.name, line, err)
		}
		lines = append(lines, l)
	}
	if len(lines) != n {
		t.Fatalf("%s received %d messages, want %d", p.name, len(lines), n)
	}
	return lines
}

// running is a peer that goes on until its standard input ends.
type running struct {
	name  string
	lines chan string // closed when it has ended
	stdin io.Closer
	wait  func() error
	errs  *bytes.Buffer
}

// start starts the peer; it ends with the test at the latest.
func (p peer) start(t *testing.T, args ...string) *running {
	t.Helper()
	argv := append(p.command(t), args...)
	c := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	r := &running{name: p.name, lines: make(chan string, 10_000), errs: &bytes.Buffer{}}
	c.Env, c.Stderr = peerEnviron(), r.errs
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r.stdin = stdin
	r.wait = sync.OnceValue(func() error {
		for range r.lines { // until its output ends
		}
		return c.Wait()
	})
	go func() {
		defer close(r.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			r.lines <- in.Text()
		}
	}()
	t.Cleanup(func() { _ = r.wait() })
	return r
}

// next returns the peer's next line.
func (r *running) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-r.lines:
		if !ok {
			t.Fatalf("%s has ended: %v: %s", r.name, r.wait(), r.errs)
		}
		return line
	case <-kafkaContext(t).Done():
		t.Fatalf("%s says nothing", r.name)
	}
	return ""
}

// end lets the peer end in order.
func (r *running) end(t *testing.T) {
	t.Helper()
	_ = r.stdin.Close()
	if err := r.wait(); err != nil {
		t.Errorf("%s: %v: %s", r.name, err, r.errs)
	}
}

// differ says what is different between what was received and what should have been, but for the topic; nil and empty are different.
func differ(got, want stagebus.Message) string {
	got.Topic, want.Topic = "", ""
	if !bytes.Equal(got.Body, want.Body) || (got.Body == nil) != (want.Body == nil) {
		return fmt.Sprintf("body of %d bytes (nil: %v) %.80q, want %d (nil: %v) %.80q",
			len(got.Body), got.Body == nil, got.Body, len(want.Body), want.Body == nil, want.Body)
	}
	show := func(m stagebus.Message) string {
		m.Body, m.Time, m.Deadline = nil, m.Time.UTC(), m.Deadline.UTC()
		return fmt.Sprintf("%#v", m)
	}
	if g, w := show(got), show(want); g != w {
		return fmt.Sprintf("got\n%s, want\n%s", g, w)
	}
	return ""
}
