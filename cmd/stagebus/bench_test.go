package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/bench"
)

// little is a bench that is over at once.
var little = []string{"--count", "500", "--warmup", "0", "--size", "100"}

func benchArgs(args ...string) []string { return append(append([]string{"bench"}, args...), little...) }

func TestBenchUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--size x", `--size: "x" is not a size`},
		{"--size 5", "--size 5 B: it is from 28 B"},
		{"--rate fast", `--rate: "fast" is not a rate`},
		{"--tolerance much", "--tolerance"},
		{"--duration 0", "--duration 0s: it is positive"},
		{"--duration -1s", "--duration -1s: it is positive"},
		{"--producers 0", "--producers 0: it is from 1"},
		{"--durability none", "it is safe or unsafe"},
		{"--topic a--b", "invalid topic"},
		{"--compare", "--compare needs two brokers or more as arguments"},
		{"--compare memory://", "and got 1"},
		{"--compare memory:// memory:// --broker memory://", "both --broker or --context and --compare"},
		{"--compare nowhere memory://", `context "nowhere" (--context) doesn't exist`},
		{"publish --compare memory://", "and got 1"},
		{"memory://", "a URL as argument is for --compare"},
		{"publsh", `did you mean "publish"?`},
		{"publish x", `unknown command "x"`},
		{"consume --rate 5", "bench both --rate"},
		{"request --topic t", "leave it out"},
		{"--baseline no-such-file", "--baseline: open no-such-file"},
		{"", "no broker"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := runWith(t.Context(), "", nil, append([]string{"bench"}, strings.Fields(c.args)...)...)
			r.want(t, exitUsage, "", c.want)
			if strings.Count(r.err, "\n") != 1 {
				t.Errorf("not one line: %q", r.err)
			}
		})
	}
}

func TestBench(t *testing.T) {
	w := newWorld(t)
	for _, mode := range []string{"", "publish", "consume", "both", "request"} {
		t.Run(mode, func(t *testing.T) {
			r := w.run("", benchArgs(strings.Fields(mode)...)...)
			if mode == "" {
				mode = "both"
			}
			if r.code != exitOK || !strings.HasPrefix(r.out, "bench "+mode+": bodies of 100 B") || !strings.Contains(r.out, "messages/s") {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.out, "┤") {
				t.Error("a plot, and nobody sits at a terminal")
			}
			if mode != "consume" && !strings.Contains(r.out, "p99.9") {
				t.Errorf("no latencies: %s", r.out)
			}
			if !strings.Contains(r.err, "stagebus: 1 of ") {
				t.Errorf("standard error %q", r.err)
			}
		})
	}
	r := w.run("", "bench", "-q", "--plot", "--size", "100", "--duration", "500ms", "--warmup", "0", "publish")
	if r.code != exitOK || r.err != "" || strings.Count(r.out, "┤") < 10 {
		t.Errorf("no plot: %+v", r)
	}
	if infos, err := w.b.Admin().List(t.Context()); err != nil || len(infos) > 0 {
		t.Errorf("topics are left: %v, %v", infos, err)
	}
}

func TestBenchJSON(t *testing.T) {
	r := newWorld(t).run("", benchArgs("--output", "json", "--rate", "100k", "-q")...)
	if r.code != exitOK || r.err != "" {
		t.Fatalf("%+v", r)
	}
	report, err := bench.ReadReport(strings.NewReader(r.out))
	if err != nil || len(report.Rows) != 1 || report.Rows[0].Rounds[0].Counts.Received != 500 || report.Settings.Rate != 100_000 || report.Machine.Stagebus == "" {
		t.Errorf("%v, %+v", err, report)
	}
}

func TestBenchCompare(t *testing.T) {
	a, b := newWorld(t), openMemory("bench-compare-b")
	defer b.Close(t.Context()) //nolint:errcheck // memory
	r := a.run("", benchArgs("--compare", a.url, "memory://bench-compare-b?max_message=5000", "-q", "--output", "json")...)
	if r.code != exitOK || r.err != "" {
		t.Fatalf("%+v", r)
	}
	report, err := bench.ReadReport(strings.NewReader(r.out))
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Brokers) != 2 || len(report.Rows) != 4 || len(report.Rows[3].Rounds) != 3 || report.Brokers[1].URL != "memory://bench-compare-b?max_message=5000" {
		t.Errorf("%+v", report)
	}
	if r := a.run("", benchArgs("--compare", a.url, "memory://bench-compare-b", "-q", "--rounds", "1")...); r.code != exitOK || !strings.Contains(r.out, "B/A") {
		t.Errorf("%+v", r)
	}
}

// Of a baseline that was better the run fails, with a line for each figure; of another kind it is refused before anything is measured.
func TestBenchBaseline(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "baseline.json")
	r := w.run("", benchArgs("publish", "--save", file, "--rate", "10k")...)
	if r.code != exitOK || !strings.Contains(r.err, "stagebus: saved to "+file) {
		t.Fatalf("%+v", r)
	}
	again := benchArgs("publish", "--baseline", file, "--rate", "10k", "-q")
	edit := func(p50 int64, perSecond float64) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		report, err := bench.ReadReport(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		l := report.Rows[0].Median.Latency
		l.P50, l.P99, report.Rows[0].Median.PerSecond = p50, p50, perSecond
		if b, err = json.Marshal(report); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit(1e12, 1)
	if r := w.run("", again...); r.code != exitOK || r.err != "" {
		t.Errorf("better than the baseline: %+v", r)
	}
	edit(1, 1e9)
	r = w.run("", again...)
	for _, want := range []string{"messages/s is ", "p50 is ", "p99 is ", "3 figures worse than the baseline " + file} {
		if r.code != exitFailure || !strings.Contains(r.err, want) || !strings.Contains(r.out, "messages/s") {
			t.Errorf("worse than the baseline: %+v, want %q", r, want)
		}
	}
	if n := strings.Count(r.err, "\n"); n != 4 {
		t.Errorf("%d lines: %s", n, r.err)
	}
	r = w.run("", benchArgs("publish", "--baseline", file, "--rate", "11k", "-q")...)
	r.want(t, exitUsage, "", "the baseline has other settings: rate is 11000, the baseline's 10000")
	if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.run("", again...).want(t, exitUsage, "", "it is not a report")
}

func TestBenchFails(t *testing.T) {
	w := newWorld(t)
	good := filepath.Join(t.TempDir(), "good.json")
	if r := w.run("", benchArgs("publish", "--save", good, "-q")...); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	before, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"publish", "both"} {
		if r := w.run("", benchArgs(mode, "--topic", "nothing", "-q")...); r.code != exitFailure || !strings.Contains(r.err, `"nothing"`) {
			t.Errorf("%+v", r)
		}
	}
	w.run("", benchArgs("both", "--topic", "nothing", "--save", good, "-q")...)
	if after, err := os.ReadFile(good); err != nil || string(after) != string(before) {
		t.Errorf("a run that failed has replaced a result: %v", err)
	}
	r := w.run("", benchArgs("--save", filepath.Join(t.TempDir(), "no", "dir"), "-q")...)
	if r.code != exitFailure || !strings.Contains(r.err, "--save") || !strings.Contains(r.out, "messages/s") {
		t.Errorf("%+v", r)
	}
}

// The first interrupt ends in order, with the figures so far.
func TestBenchInterrupted(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "save.json")
	out, errs, stop := w.background(nil, "bench", "--size", "100", "--duration", "300ms", "--warmup", "0", "--rounds", "1000", "--save", file)
	errs.await(t, "stagebus: 3 of ")
	if code := stop(); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(out.String(), "at half of that") || !strings.Contains(errs.String(), "stopped by a signal") {
		t.Errorf("%s\n%s", out, errs)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a part of a result was saved")
	}
	if infos, err := w.b.Admin().List(t.Context()); err != nil || len(infos) > 0 {
		t.Errorf("topics are left: %v, %v", infos, err)
	}
}

// The connect time-out of a context holds for its own broker, not for those that are compared with it.
func TestBenchCompareTimeouts(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close() //nolint:errcheck // nobody was answered
	h := newHome(t)
	h.words("context add patient --broker memory://patient --connect-timeout 1h")
	h.words("context add brief --broker amqp://" + mute.Addr().String() + "/ --connect-timeout 50ms")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errInterrupted) // the adapter itself gives up after 10 s
	defer cancel()
	r := runWith(ctx, "", h.env, benchArgs("--compare", "patient", "brief")...)
	r.want(t, exitFailure, "", "nothing answered there: is the broker running and reachable?")
}

// A report replaces files and nothing else.
func TestSaveReportKeepsWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real.json"), filepath.Join(dir, "link.json")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if err := saveReport(link, &bench.Report{}); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link is %q, %v", to, err)
	}
	if b, err := os.ReadFile(file); err != nil || len(b) == 0 {
		t.Errorf("%q, %v", b, err)
	}
	if err := saveReport(os.DevNull, &bench.Report{}); err == nil || !strings.Contains(err.Error(), "isn't a file") {
		t.Error(err)
	}
}
