package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
)

func TestDevUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"dev x", `too many arguments, from "x" on: stagebus dev [flags]`},
		{"dev --dir d --ephemeral", "both --dir and --ephemeral"},
		{"dev --partitions 0", "--partitions 0: it is 1 to 10000"},
		{"dev --max-bytes 1MiB", `--max-bytes "1MiB": it is a size of at least 16MiB`},
		{"dev --max-bytes much", `--max-bytes "much"`},
		{"dev --max-bytes 9999999999GiB", "--max-bytes"},
		{"dev --topic t:0 --ephemeral", `--topic "t:0": it is name or name:partitions`},
		{"dev --topic t:x --ephemeral", `--topic "t:x": it is name or name:partitions`},
		{"dev --topic a/b --ephemeral", `--topic "a/b": a topic's name is`},
		{"dev", "no place to keep anything: neither XDG_STATE_HOME nor HOME is set; give --dir DIRECTORY, or --ephemeral"},
		{"dev --ephemeral --listen 0.0.0.0:0", "other machines reach that address, and the broker asks nobody for a password; if that is what you want, add --advertise"},
		{"dev --dir testdata", "holds files that aren't a development broker's; give --dir an empty directory"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := runWith(t.Context(), "", nil, strings.Fields(c.args)...)
			r.want(t, exitUsage, "", c.want)
			if n := strings.Count(r.err, "\n"); n != 1 {
				t.Errorf("%d lines", n)
			}
		})
	}
}

func TestDevPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	address := l.Addr().String()
	runWith(t.Context(), "", nil, "dev", "--ephemeral", "--listen", address).
		want(t, exitFailure, "", "listen on "+address+": bind: address already in use: another broker, or another program; stop it, or give --listen another port")
}

// What a new user sees: what is kept comes first.
func TestDevSays(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	dir := filepath.Join(t.TempDir(), "stagebus", "dev")
	go func() {
		code <- run(ctx, strings.Fields("dev --listen 127.0.0.1:0 --topic prompts:3"), streams{nil, out, errs, func(k string) string {
			return map[string]string{"XDG_STATE_HOME": filepath.Dir(filepath.Dir(dir))}[k]
		}})
	}()
	errs.await(t, "next, in another terminal: export STAGEBUS_BROKER=kafka://127.0.0.1:")
	url := errs.String()[strings.LastIndex(errs.String(), "kafka://"):]
	url = strings.TrimSpace(url)
	env := map[string]string{"STAGEBUS_BROKER": url}
	runWith(t.Context(), "", env, "topics", "list").want(t, exitOK, "prompts  topic\n", "")
	runWith(t.Context(), "", nil, "dev", "--dir", dir, "--listen", "127.0.0.1:0").
		want(t, exitFailure, "", "directory "+dir+" is in use by process")
	cancel(errInterrupted)
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d", c)
	}
	address := strings.TrimPrefix(url, "kafka://")
	want := "stagebus: a broker for development, not for production; it " + devKeeps + "\n" +
		"stagebus: listens at " + address + ", keeps up to 1 GiB in " + dir + "; interrupt it to stop\n" +
		"stagebus: next, in another terminal: export STAGEBUS_BROKER=" + url + "\n" +
		"stagebus: stops\n"
	if got := errs.String(); got != want || out.String() != "" {
		t.Errorf("standard error %q, want %q; standard output %q", got, want, out)
	}
}

// devProcess is a `stagebus dev` that can be killed.
type devProcess struct {
	t     *testing.T
	c     *exec.Cmd
	ready struct {
		Broker, Dir, Keeps string
		Recovered          bool
	}
}

// startDev returns when the broker is ready.
func startDev(t *testing.T, args ...string) *devProcess {
	t.Helper()
	d := &devProcess{t: t, c: command(t, 0, append([]string{"dev", "--listen", "127.0.0.1:0", "--output", "json"}, args...)...)}
	out, err := d.c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.c.Stderr = os.Stderr
	if err := d.c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.kill() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &d.ready); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return d
}

// kill is kill -9.
func (d *devProcess) kill() {
	d.t.Helper()
	if d.c.ProcessState != nil {
		return
	}
	if err := d.c.Process.Kill(); err != nil {
		d.t.Error(err)
	}
	_ = d.c.Wait() // killed
}

func (d *devProcess) stop(s os.Signal) {
	d.t.Helper()
	if err := d.c.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
	if err := d.c.Wait(); err != nil {
		d.t.Error(err)
	}
}

func (d *devProcess) connect() *stagebus.Broker {
	d.t.Helper()
	b, err := adapters.Open(d.t.Context(), d.ready.Broker, adapters.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// Signals stop it in order, and the next one has nothing to repair.
func TestDevProcessStops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		d := startDev(t, "--dir", dir, "--topic", "t")
		if d.ready.Recovered || d.ready.Dir != dir {
			t.Errorf("%+v", d.ready)
		}
		b := d.connect()
		if err := seed(b, stagebus.Message{Topic: "t", Body: []byte(s.String())}); err != nil {
			t.Error(err)
		}
		d.stop(s)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_ = b.Close(ctx) // its broker is gone
		cancel()
	}
	d := startDev(t, "--dir", dir)
	r := runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": d.ready.Broker}, "consume", "--topic", "t", "--from", "earliest")
	r.want(t, exitOK, os.Interrupt.String()+"\n"+syscall.SIGTERM.String()+"\n", "nothing is committed")
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "17": 17, "17B": 17, "2K": 2048, "2KiB": 2048, "3MiB": 3 << 20, "1GiB": 1 << 30, "1GB": 1e9, "1kb": -1, "": -1, "GiB": -1, "-1": -1, "1iB": -1} {
		got, err := parseSize(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for n, want := range map[int64]string{1 << 30: "1 GiB", 17 << 20: "17 MiB", 1e9: "1000000000 bytes", 0: "0 bytes"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %q", n, got)
		}
	}
}

// devDir is the default directory.
func devDir(h *home) string {
	h.t.Helper()
	dir := filepath.Join(h.env["HOME"], ".local", "state", "stagebus", "dev")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func devDirForeign(h *home, _ *world) {
	if err := os.WriteFile(filepath.Join(devDir(h), "thesis.txt"), []byte("x"), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// devDirLocked is as another process would leave it while it runs.
func devDirLocked(h *home, _ *world) {
	f, err := os.Create(filepath.Join(devDir(h), "stagebus-dev.lock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() }) //nolint:errcheck // a test's
	if _, err := f.WriteString("process 4711 at 127.0.0.1:9092\n"); err != nil {
		h.t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		h.t.Fatal(err)
	}
}

// What went wrong while it runs is told also with --quiet, and with --output json as an object.
func TestDevWarns(t *testing.T) {
	for output, want := range map[string]string{"text": "stagebus: persist: disk full\n", "json": `{"note":"persist: disk full"}` + "\n"} {
		var errs bytes.Buffer
		p := &program{streams: streams{err: &errs}, output: output, quiet: true}
		log := slog.New(&noteHandler{p: p, level: slog.LevelWarn})
		log.Warn("a member is late")
		log.Error("persist: disk full")
		if errs.String() != want {
			t.Errorf("%s: %q, want %q", output, &errs, want)
		}
	}
}
