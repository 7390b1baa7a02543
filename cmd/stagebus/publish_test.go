package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

// bodies consumes topic t from the start and returns what raw prints.
func (w *world) bodies() string {
	w.t.Helper()
	r := w.run("", "consume", "--topic", "t", "--quiet")
	if r.code != exitOK {
		w.t.Fatalf("%+v", r)
	}
	return r.out
}

func TestPublishArgument(t *testing.T) {
	w := newWorld(t)
	w.run("not this", "publish", "--create", "--topic", "t", "--key", "k", "a\nb").want(t, exitOK, "", "published 1 message\n")
	w.run("", "publish", "--topic", "t", "--count", "3", "--quiet", "c").want(t, exitOK, "", "")
	w.run("", "publish", "--topic", "t", "--quiet", "").want(t, exitOK, "", "")
	w.run("", "publish", "--topic", "t", "--quiet", "--", "-x").want(t, exitOK, "", "")
	if got, want := w.bodies(), "a\nb\nc\nc\nc\n\n-x\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// forbidden is standard input that belongs to somebody else.
type forbidden struct{ t *testing.T }

func (f forbidden) Read([]byte) (int, error) {
	f.t.Error("standard input was read")
	return 0, os.ErrInvalid
}

// In `while read line; do stagebus publish …; done`, standard input is the loop's.
func TestPublishLeavesStandardInputAlone(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "x")
	for _, args := range [][]string{{"body"}, {""}, {"--file", file}, {"--file", file, "--jsonl"}} {
		args = append([]string{"publish", "--create", "--topic", "t"}, args...)
		run(t.Context(), args, streams{forbidden{t}, newBuffer(), newBuffer(), brokerAt(w.url)})
	}
	if got := w.bodies(); got != "body\n\nx\n" {
		t.Errorf("got %q", got)
	}
}

// A message is what was typed: other programs' consumers see nothing else.
func TestPublishBareByDefault(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("first")
	w.run("", "publish", "--topic", "t", "--quiet", "second").want(t, exitOK, "", "")
	got := w.records()
	if got[1].ID != "" || got[1].ContentType != "" || got[1].Headers != nil || got[1].Key != nil {
		t.Errorf("got %+v", got[1])
	}
}

// records consumes topic t as JSON and reads it back.
func (w *world) records() []stagebus.Message {
	w.t.Helper()
	r := w.run("", "consume", "--topic", "t", "--quiet", "--format", "json")
	if r.code != exitOK {
		w.t.Fatalf("%+v", r)
	}
	var ms []stagebus.Message
	for line := range strings.Lines(r.out) {
		m, err := decodeRecord([]byte(line))
		if err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		ms = append(ms, m)
	}
	return ms
}

func TestPublishFlags(t *testing.T) {
	w := newWorld(t)
	w.run("", "publish", "--create", "--topic", "t", "--key", "", "--header", "a=1:2", "--header", "b: 3=4", "--header", "a=", "--header", "c:x, y",
		"--content-type", "text/plain", "--content-encoding", "gzip", "--id", "i", "--source", "s", "--type", "ty", "--subject", "su",
		"--correlation-id", "co", "--reply-to", "re", "--audience", "au", "--priority", "7", "--deadline", "2030-01-02T03:04:05Z", "--partition", "0",
		"--quiet", "body").want(t, exitOK, "", "")
	got := w.records()[0]
	if got.Deadline.Unix() != 1893553445 {
		t.Errorf("deadline %v", got.Deadline)
	}
	got.Time, got.Deadline = got.Time.Truncate(1<<62), got.Deadline.Truncate(1<<62)
	want := stagebus.Message{
		Topic: "t", Key: []byte{}, Body: []byte("body"), ContentType: "text/plain", ContentEncoding: "gzip", ID: "i", Source: "s", Type: "ty",
		Subject: "su", CorrelationID: "co", ReplyTo: "re", Audience: "au", Priority: 7,
		Headers: stagebus.Headers{{Key: "a", Value: "1:2"}, {Key: "b", Value: "3=4"}, {Key: "a", Value: ""}, {Key: "c", Value: "x, y"}},
	}
	want.Time, want.Deadline = got.Time, got.Deadline
	same(t, &want, &got)
}

func TestPublishStampsEachCopy(t *testing.T) {
	w := newWorld(t)
	w.run("", "publish", "--create", "--topic", "t", "--stamp", "--count", "2", "-q", "x").want(t, exitOK, "", "")
	ms := w.records()
	if len(ms[0].ID) != 36 || ms[0].ID == ms[1].ID || ms[0].Time.IsZero() {
		t.Errorf("%+v", ms)
	}
}

func TestPublishLines(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 1<<20) // a bufio.Scanner would give up at 64 KiB
	in := "one\n\n" + long + "\r\nlast without a line feed"
	w.run(in, "publish", "--create", "--topic", "t").want(t, exitOK, "", "published 4 messages\n")
	if got := w.bodies(); got != in+"\n" {
		t.Errorf("%d bytes, want %d", len(got), len(in)+1)
	}
	w.run("", "publish", "--topic", "t").want(t, exitOK, "", "published 0 messages\n")
	w.run("dash\n", "publish", "--topic", "t", "-").want(t, exitOK, "", "published 1 message\n")
}

func TestPublishLineTooLong(t *testing.T) {
	w := newWorld(t)
	w.run("1234\n12345\n6\n", "publish", "--create", "--topic", "t", "--max-bytes", "4").
		want(t, exitFailure, "", "line 2: longer than 4 bytes: raise --max-bytes; published 1, failed 1\n")
	if got := w.bodies(); got != "1234\n" {
		t.Errorf("got %q", got)
	}
}

func TestPublishFiles(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "line 1\nline 2\n")
	write(t, b, "")
	w.run("not this", "publish", "--create", "--topic", "t", "--file", a, "--file", b).want(t, exitOK, "", "published 2 messages\n")
	if got := w.bodies(); got != "line 1\nline 2\n\n\n" {
		t.Errorf("got %q", got)
	}
	w.run("", "publish", "--topic", "t", "--file", a, "--file", dir+"/none", "--file", b).
		want(t, exitFailure, "", "none: no such file or directory; published 1, failed 1\n")
	w.run("", "publish", "--topic", "t", "--file", a, "--max-bytes", "3").want(t, exitFailure, "", "a\": longer than 3 bytes")
}

func write(t *testing.T, name, s string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPublishRecords(t *testing.T) {
	w := newWorld(t)
	in := `{"topic":"t","key":"k","body":"one","headers":[["a","b"]],"position":{"topic":"x","partition":1,"offset":2},"attempt":3}

{"topic":"other","body_base64":"/w=="}
{"topic":"t","body":null}`
	w.run(in, "publish", "--create", "--jsonl", "--topic", "t", "--header", "c=d", "--key", "K").want(t, exitOK, "", "published 3 messages\n")
	ms := w.records()
	want := []stagebus.Message{
		{Topic: "t", Key: []byte("K"), Body: []byte("one"), Headers: stagebus.Headers{{Key: "a", Value: "b"}, {Key: "c", Value: "d"}}},
		{Topic: "t", Key: []byte("K"), Body: []byte{0xff}, Headers: stagebus.Headers{{Key: "c", Value: "d"}}},
		{Topic: "t", Key: []byte("K"), Body: nil, Headers: stagebus.Headers{{Key: "c", Value: "d"}}},
	}
	for i := range want {
		want[i].Time = ms[i].Time
		same(t, &want[i], &ms[i])
	}
	file := filepath.Join(t.TempDir(), "r.jsonl")
	write(t, file, `{"topic":"t","body":"from a file"}`)
	w.run("", "publish", "--jsonl", "--file", file).want(t, exitOK, "", "published 1 message\n")
}

// The first line that is wrong is named, what was before it is published, nothing after it is.
func TestPublishStopsAtTheFirstFailure(t *testing.T) {
	ok := `{"topic":"t","body":"ok"}` + "\n"
	for _, c := range []struct{ name, bad, want string }{
		{"not JSON", "{oops", "not a record in JSON"},
		{"cut off", `{"topic":"t"`, "does not end"},
		{"not a record", `{"value":1}`, `unknown field "value"`},
		{"no topic", `{"body":"x"}`, "no topic: give --topic NAME"},
		{"bad topic", `{"topic":"a b","body":"x"}`, `invalid topic "a b"`},
		{"long header name", `{"topic":"t","body":"x","headers":[["` + strings.Repeat("n", 300) + `","v"]]}`, "1 to 255 bytes"},
		{"reserved header", `{"topic":"t","body":"x","headers":[["ce_id","v"]]}`, "reserved"},
		{"200 KB of headers", `{"topic":"t","body":"x","headers":[["n","` + strings.Repeat("v", 200_000) + `"]]}`, "too large"},
		{"body over the limit", `{"topic":"t","body":"` + strings.Repeat("v", 17<<20) + `"}`, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.seedBodies("seed")
			r := w.run(strings.Repeat(ok, 300)+c.bad+"\n"+ok+ok, "publish", "--jsonl")
			r.want(t, exitFailure, "", "stagebus: line 301: ")
			r.want(t, exitFailure, "", c.want)
			r.want(t, exitFailure, "", "; published 300, failed 1")
			if strings.Count(r.err, "\n") != 1 {
				t.Errorf("more than one line: %s", r.err)
			}
			if got := strings.Count(w.bodies(), "\n"); got != 301 {
				t.Errorf("%d messages in the topic, want 301", got)
			}
		})
	}
}

// A message that only the broker refuses was on its way with others.
func TestPublishFailureOnTheWay(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("seed")
	bad := `{"topic":"missing","body":"x"}` + "\n"
	ok := `{"topic":"t","body":"ok"}` + "\n"
	r := w.run(strings.Repeat(ok, 300)+bad+strings.Repeat(ok, 100_000), "publish", "--jsonl")
	r.want(t, exitFailure, "", "stagebus: line 301: send \"missing\"")
	if n := strings.Count(w.bodies(), "\n"); n < 301 || n > 10_000 {
		t.Errorf("%d messages in the topic, want 301 and some", n)
	}
}

func TestPublishToMissingTopic(t *testing.T) {
	w := newWorld(t)
	r := w.run("", "publish", "--topic", "t", "x")
	r.want(t, exitFailure, "", `"t"`)
	r.want(t, exitFailure, "", "no such topic")
	if strings.Count(r.err, "\n") != 1 {
		t.Errorf("more than one line: %s", r.err)
	}
}

// Lines leave as they come: `tail -f | stagebus publish` must not wait for a full batch.
func TestPublishFollowsItsInput(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("seed")
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // only read
	out, _, stopConsume := w.background(nil, "consume", "--topic", "t", "--follow")
	_, errs, stopPublish := w.background(in, "publish", "--topic", "t")
	for i := range 3 {
		feedIn(t, feed, fmt.Sprintf("line %d\nhalf a li", i))
		out.await(t, fmt.Sprintf("line %d\n", i))
		feedIn(t, feed, "ne\n")
	}
	out.await(t, "line 2\nhalf a line\n")
	// A signal ends the input; the read that is waiting is left alone.
	if code := stopPublish(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	errs.await(t, "published 6 messages, stopped by a signal\n")
	if code := stopConsume(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if err := feed.Close(); err != nil { // the reader ends
		t.Fatal(err)
	}
}

func feedIn(t *testing.T, w *os.File, s string) {
	t.Helper()
	if _, err := w.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func TestPublishInterruptedBeforeTheEndOfFiles(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("seed")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newSender(&fakeProducer{submit: func(ms []stagebus.Message, done func([]stagebus.Outcome)) error {
		cancel(errInterrupted)
		done(make([]stagebus.Outcome, len(ms)))
		return nil
	}})
	if !s.run(ctx, &batcher{in: &files{names: []string{os.Args[0]}, max: 1 << 30}, fill: func(*stagebus.Message) error { return nil }, copies: 1 << 40}) {
		t.Error("not told that it was stopped")
	}
	if n, err := s.result(); n == 0 || err != nil {
		t.Errorf("published %d, %v", n, err)
	}
}

// fakeProducer has the outcomes that a test needs.
type fakeProducer struct {
	submit func([]stagebus.Message, func([]stagebus.Outcome)) error
}

func (p *fakeProducer) Submit(_ context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	return p.submit(ms, done)
}
func (p *fakeProducer) Close(context.Context) error { return nil }

func TestSenderCountsOutcomes(t *testing.T) {
	broke := errors.New("broke")
	s := newSender(&fakeProducer{submit: func(ms []stagebus.Message, done func([]stagebus.Outcome)) error {
		os := make([]stagebus.Outcome, len(ms))
		os[2].Err = stagebus.ErrUncertain
		os[3].Err = broke
		go done(os)
		return nil
	}})
	in := newLines("", strings.NewReader("1\n2\n3\n4\n5\n"), 10, false)
	s.run(t.Context(), &batcher{in: in, fill: func(*stagebus.Message) error { return nil }, copies: 1})
	n, err := s.result()
	if n != 3 || !errors.Is(err, stagebus.ErrUncertain) || err.Error() != "line 3: uncertain: it may have arrived; published 3, failed 1, uncertain 1" {
		t.Errorf("published %d, %v", n, err)
	}
}

// The first failure is the first in the input, in whatever order outcomes come.
func TestSenderNamesTheFirstFailure(t *testing.T) {
	s := newSender(nil)
	s.fail(7, errors.New("seven"))
	s.fail(2, errors.New("two"))
	s.fail(9, errors.New("nine"))
	if _, err := s.result(); err.Error() != "two; published 0, failed 3" {
		t.Error(err)
	}
}

func TestSenderRefusedAtOnce(t *testing.T) {
	s := newSender(&fakeProducer{submit: func([]stagebus.Message, func([]stagebus.Outcome)) error { return stagebus.ErrClosed }})
	s.run(t.Context(), &batcher{in: &single{}, fill: func(*stagebus.Message) error { return nil }, copies: 1})
	if _, err := s.result(); !errors.Is(err, stagebus.ErrClosed) {
		t.Error(err)
	}
}
