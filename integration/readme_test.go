package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// TestREADME does what the README says, as a newcomer would: in a copy of the tree, its programs saved under the names in their first
// lines, its commands one after the other in one shell. A command whose comment is "# -> TEXT" must print just that.
//
// Addresses are replaced by those of brokers of its own, and `docker compose` by a stand-in that brings them up, kills and starts
// them: the file itself is tried by TestComposeUp.
func TestREADME(t *testing.T) {
	rabbit, kafka := broker.Private(t, broker.AMQP), broker.Private(t, broker.Kafka)
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := copyTree(t)
	places := strings.NewReplacer("localhost:5672", rabbit.Addr(), "localhost:9092", kafka.Addr(),
		"localhost:9192", freeAddress(t), "localhost:9464", freeAddress(t))
	var script strings.Builder
	commands := 0
	for _, block := range fences(string(text)) {
		switch {
		case block.language == "sh":
			// The management API isn't at its usual port, and only stagebus understands to be told so.
			code := block.code
			if m, ok := rabbit.Management(); ok {
				code = strings.ReplaceAll(code, "amqp://guest:guest@localhost:5672/", rabbit.URL()+"?management="+url.QueryEscape(m))
			}
			fmt.Fprintf(&script, "echo '== README line %d' >&2\n%s", block.line, checked(places.Replace(code)))
			commands++
		case block.file != "":
			file := filepath.Join(dir, block.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(places.Replace(block.code)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if commands < 5 {
		t.Fatalf("%d blocks of commands were found: the README has more", commands)
	}
	runREADME(t, dir, script.String(), stackServer(t, map[string]*broker.Instance{"rabbitmq": rabbit, "kafka": kafka}))
}

// expectation is the end of a line whose output is known.
var expectation = regexp.MustCompile(`(?m)^(.*\S)\s+# -> (.*)$`)

// checked turns "command # -> text" into a command that fails unless it prints text.
func checked(code string) string {
	return expectation.ReplaceAllStringFunc(code, func(line string) string {
		part := expectation.FindStringSubmatch(line)
		return fmt.Sprintf("got=$(%s); [[ $got == %s ]] || { echo \"printed: $got\" >&2; exit 99; }", part[1], quote(part[2]))
	})
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// runREADME runs the script with a shell in dir, in an environment of its own.
func runREADME(t *testing.T, dir, script, stack string) {
	t.Helper()
	home, bin := t.TempDir(), filepath.Join(t.TempDir(), "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(stack)
	if err != nil {
		t.Fatal(err)
	}
	docker := fmt.Sprintf("#!/usr/bin/env bash\nexec 3<>/dev/tcp/127.0.0.1/%s\nprintf '%%s\\n' \"$*\" >&3\nread -r code said <&3\necho \"$said\" >&2\nexit \"$code\"\n", port)
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(docker), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script)
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "GOBIN="+bin, "HOME="+home,
		"XDG_CONFIG_HOME="+home, "XDG_STATE_HOME="+home, "XDG_DATA_HOME="+home, "STAGEBUS_BROKER=", "GOWORK=", "GOFLAGS=-buildvcs=false")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"} { // HOME is another
		value, err := exec.CommandContext(ctx, "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		c.Env = append(c.Env, name+"="+strings.TrimSpace(string(value)))
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.WaitDelay = 10 * time.Second // a background command that holds on to the output
	if err := c.Run(); err != nil {
		t.Errorf("%v, %v\n%s", err, context.Cause(ctx), &out)
	} else {
		t.Logf("%s", &out)
	}
}

// fence is one fenced block of a Markdown text.
type fence struct {
	line           int
	language, code string
	file           string // what its first line names, if that is a comment that is a file's name
}

var fileName = regexp.MustCompile(`^(?://|#) ([\w./-]+\.(?:go|py|yaml))$`)

func fences(text string) []fence {
	var out []fence
	var open *fence
	n := 0
	for line := range strings.Lines(text) {
		n++
		mark, isFence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case isFence && open == nil:
			open = &fence{line: n, language: mark}
		case isFence:
			out = append(out, *open)
			open = nil
		case open != nil:
			if name := fileName.FindStringSubmatch(strings.TrimSpace(line)); open.code == "" && name != nil {
				open.file = name[1]
			}
			open.code += line
		}
	}
	return out
}

// stackServer answers a docker command with its exit code and what to say, on one line each, and returns its address.
func stackServer(t *testing.T, services map[string]*broker.Instance) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			if err := dockerCommand(t.Context(), services, strings.Fields(line)); err != nil {
				_, _ = fmt.Fprintf(conn, "1 %v\n", err)
			} else {
				_, _ = fmt.Fprintf(conn, "0 docker %s", line)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func dockerCommand(ctx context.Context, services map[string]*broker.Instance, args []string) error {
	line := strings.Join(args, " ")
	if line == "compose up -d --wait" || line == "compose down" {
		return nil // they are up, and go with the test
	}
	if len(args) == 3 && args[0] == "compose" && services[args[2]] != nil {
		switch i := services[args[2]]; args[1] {
		case "kill":
			return i.Kill(ctx)
		case "start":
			return i.Start(ctx)
		}
	}
	return fmt.Errorf("docker %s: this test has no stand-in for it", line)
}

// copyTree copies what git knows or would add of the project, so that a newcomer's commands find what a clone has and leave nothing in it.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-co", "--exclude-standard", "-z")
	list.Dir = ".."
	names, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		from, to := filepath.Join("..", name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, body, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freeAddress is an address on this machine where nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a listener
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
