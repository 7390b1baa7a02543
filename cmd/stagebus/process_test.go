package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const syscallEPIPE = syscall.EPIPE

// `stagebus consume | head -1` takes one message; the others are still there, and nobody has failed.
func TestProcessReaderLeaves(t *testing.T) {
	const messages = 500
	for _, format := range []string{"raw", "json"} {
		t.Run(format, func(t *testing.T) {
			c := command(t, messages, "consume", "--topic", "t", "--group", "default", "--format", format)
			var errs bytes.Buffer
			c.Stderr = &errs
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			c.Stdout = w
			head := exec.CommandContext(t.Context(), "head", "-n", "1")
			head.Stdin = r
			var first bytes.Buffer
			head.Stdout = &first
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
			if err := c.Wait(); err != nil {
				t.Errorf("%v: %s", err, &errs)
			}
			if !strings.Contains(first.String(), "message 0") || strings.Count(first.String(), "\n") != 1 {
				t.Errorf("head got %q", &first)
			}
			if want := fmt.Sprintf("left %d\n", messages-1); errs.String() != want {
				t.Errorf("standard error %q, want %q", &errs, want)
			}
		})
	}
}

// A reader that reads only when the command has ended must not be waited for.
func TestProcessReaderReadsAtTheEnd(t *testing.T) {
	c := command(t, 50, "consume", "--topic", "t", "--group", "default")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stdout, c.Stderr = w, &errs
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	w.Close() //nolint:errcheck // all is written
	out, err := io.ReadAll(r)
	if err != nil || bytes.Count(out, []byte("\n")) != 50 {
		t.Errorf("%v, %d bytes", err, len(out))
	}
	if errs.String() != "left 0\n" {
		t.Errorf("standard error %q", &errs)
	}
}

// The reader of any command may have left: that is its business, and no failure of ours.
func TestProcessStandardOutputClosed(t *testing.T) {
	for _, args := range []string{
		"", "--help", "help publish", "version", "version -o json", "completion bash", "completion fish",
		"topics list", "topics list -o json", "topics describe t", "topics declare new -o json",
		"publish --topic t x -o json", "consume --topic t -q", "consume --topic t --group default -o json",
		"context add a --broker memory:// -o json", "config explain", "config explain -o json",
		"doctor -q", "doctor -o json -q", "bench --duration 50ms --size 100 -q", "bench --duration 50ms --size 100 -q -o json",
	} {
		t.Run(args, func(t *testing.T) {
			c := command(t, 1, strings.Fields(args)...)
			c.Env = append(c.Env, "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_STATE_HOME=")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close() //nolint:errcheck // before anything is written
			var errs bytes.Buffer
			c.Stdout, c.Stderr = w, &errs
			if err := c.Run(); err != nil {
				t.Errorf("%v, want success: %s", err, &errs)
			}
			if strings.Contains(errs.String(), "pipe") || strings.Contains(errs.String(), `"error"`) {
				t.Errorf("standard error %q", &errs)
			}
		})
	}
}

func TestProcessSignals(t *testing.T) {
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			c := command(t, 3, "consume", "--topic", "t", "--group", "default", "--follow")
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var errs bytes.Buffer
			c.Stderr = &errs
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			for range 3 {
				if _, err := lines.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
				t.Errorf("%v, %q", err, rest)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("%v, want success", err)
			}
			if got, want := errs.String(), "stagebus: consumed 3 messages, stopped by a signal\nleft 0\n"; got != want {
				t.Errorf("standard error %q, want %q", got, want)
			}
		})
	}
}

// The first signal waits for what is on its way, the second for nothing: here the reader is stuck, and the command with it.
func TestProcessSecondSignal(t *testing.T) {
	c := command(t, 3, "consume", "--topic", "t", "--group", "default", "--template", `{{range $i := 300000}}{{$.Body}}{{end}}`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// With the first byte the process is at work and listens to signals. Nobody reads on, and a message is larger than the pipe.
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	limit := time.After(20 * time.Second)
	for {
		select {
		case err := <-ended:
			if code := c.ProcessState.ExitCode(); code != exitFailure {
				t.Errorf("exit code %d, %v", code, err)
			}
			return
		case <-ticks.C:
			if err := c.Process.Signal(os.Interrupt); err != nil {
				t.Log(err) // it ended meanwhile
			}
		case <-limit:
			t.Fatal("two signals were not enough")
		}
	}
}
