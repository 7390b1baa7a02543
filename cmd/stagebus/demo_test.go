package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo"
)

// smallText is a file with a text that is learnt quickly.
func smallText(t *testing.T) string {
	t.Helper()
	paragraphs := strings.SplitAfterN(demo.MadeUp(1).Body, "\n\n", 61)[:60]
	file := filepath.Join(t.TempDir(), "book.txt")
	if err := os.WriteFile(file, []byte(strings.Join(paragraphs, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Nothing but the command: no broker is asked, though the environment has one.
func TestDemo(t *testing.T) {
	r := runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": "kafka://127.0.0.1:1"}, "demo", "--text", smallText(t), "--size", "small", "--steps", "30")
	if r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{
		"book.txt: 60 paragraphs", "keeps company like", "[infer-", "\ngradients", "p99 ms", "\nperplexity", "ok     it has learnt", "ok     two workers equal one",
		"ok     all use the same parameters", "ok     every answer is whole", "over memory",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("standard output lacks %q", want)
		}
	}
	if strings.Contains(r.out, "FAILED") || strings.Contains(r.out+r.err, "\x1b") {
		t.Error("a claim failed, or a file was coloured")
	}
	if !strings.Contains(r.err, "step 30 of 30: loss ") || !strings.Contains(r.err, " messages/s\n") {
		t.Errorf("standard error does not say how it went")
	}
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "stagebus: ") {
			t.Errorf("a line of standard error is not of the form \"stagebus: …\": %q", line)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", r.out, r.err)
	}
}

func TestDemoJSON(t *testing.T) {
	r := runWith(t.Context(), "", nil, "demo", "--text", smallText(t), "--size", "small", "--steps", "30", "--chaos", "--quiet", "--output", "json", "--prompt", "the red light")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("%+v", r)
	}
	var s demo.Summary
	d := json.NewDecoder(strings.NewReader(r.out))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || d.More() {
		t.Fatalf("%v: %s", err, r.out)
	}
	if len(s.Claims) != 5 || len(s.Broken()) > 0 || s.Killed != 2 || s.Calm != s.Trained.Digest || len(s.Answers) != 1 || s.Answers[0].Text != "the red light" {
		t.Errorf("%+v", s)
	}
}

// Too few steps to learn anything: the command says so, with its exit code too.
func TestDemoClaimFails(t *testing.T) {
	r := runWith(t.Context(), "", nil, "demo", "--text", smallText(t), "--size", "small", "--steps", "1", "--quiet")
	if r.code != exitFailure || !strings.Contains(r.out, "FAILED it has learnt: ") || strings.Count(r.out, "FAILED") != 1 {
		t.Errorf("%+v", r)
	}
	if !strings.HasPrefix(r.err, `stagebus: the claim "it has learnt" does not hold: held-out perplexity `) || strings.Count(r.err, "\n") != 1 {
		t.Errorf("standard error %q", r.err)
	}
}

func TestDemoInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"demo", "--text", smallText(t), "--size", "small", "--steps", "100000"}, streams{strings.NewReader(""), newBuffer(), errs, func(string) string { return "" }})
	}()
	errs.await(t, "step 0 of 100000")
	cancel(errInterrupted)
	if c := <-code; c != exitFailure || !strings.HasSuffix(errs.String(), "stagebus: stopped by a signal before the end\n") {
		t.Errorf("exit code %d, %s", c, errs)
	}
}

func TestDemoListStages(t *testing.T) {
	r := runWith(t.Context(), "", nil, "demo", "--list-stages", "--prefix", "demo.x", "--size", "small", "--prompt", "it's")
	r.want(t, exitOK, `# each in a shell of its own, in any order; the last one shows the result
export STAGEBUS_BROKER=kafka://localhost:9092   # or amqp://guest:guest@localhost:5672/
stagebus demo --prefix demo.x --stage preprocess --size small --prompt 'it'\''s'
stagebus demo --prefix demo.x --stage train-1
stagebus demo --prefix demo.x --stage train-2
stagebus demo --prefix demo.x --stage infer-1
stagebus demo --prefix demo.x --stage infer-2
stagebus demo --prefix demo.x --stage postprocess
`, "")
}

func TestDemoRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"demo x":               "too many arguments",
		"demo --stage nosuch":  `--stage "nosuch": it is one of preprocess, train-1`,
		"demo --stage train-1": "--stage needs --prefix, the same for all six processes",
		"demo --stage train-1 --prefix a --broker memory://": "--stage needs a broker that other processes reach",
		"demo --stage train-1 --prefix a":                    "no broker",
		"demo --stage train-1 --prefix a --chaos":            "--chaos is for one process",
		"demo --size huge":                                   `--size "huge": it is small or medium`,
		"demo --steps -1":                                    "--steps -1: it is a number from 1 to 1000000",
		"demo --steps 2 --chaos":                             "--chaos needs at least 3 --steps",
		"demo --prefix a..b":                                 `--prefix: invalid topic "a..b.text"`,
		"demo --prefix " + strings.Repeat("x", 101):          "--prefix: 101 bytes, more than 100",
		"demo --prompt=":                                     "--prompt: a text of 1 to 4096 bytes",
		"demo --text nosuch.txt":                             "--text: stat nosuch.txt: no such file",
		"demo --broker kafke://h":                            `did you mean "kafka"?`,
		"demo --broker amqp://h --context c":                 "both --broker and --context",
	} {
		r := runWith(t.Context(), "", nil, strings.Fields(line)...)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") > 2 {
			t.Errorf("%s: %+v, want %q", line, r, want)
		}
	}
}
