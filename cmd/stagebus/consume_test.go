package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

func TestConsumeWithoutGroupCommitsNothing(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("a", "b")
	for range 2 {
		w.run("", "consume", "--topic", "t").want(t, exitOK, "a\nb\n", "no --group: reading all partitions, nothing is committed\n")
	}
	if got := w.depth("default"); got != 2 {
		t.Errorf("the default group has %d left, want 2", got)
	}
}

func TestConsumeWithGroupSettles(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("a", "b", "c")
	w.run("", "consume", "--topic", "t", "--group", "g", "--count", "2").want(t, exitOK, "a\nb\n", "")
	if got := w.depth("g"); got != 1 {
		t.Errorf("the group has %d left, want 1", got)
	}
	w.run("", "consume", "--topic", "t", "--group", "g").want(t, exitOK, "c\n", "")
	w.run("", "consume", "--topic", "t", "--group", "g").want(t, exitOK, "", "")
}

func TestConsumeExitCodes(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("a", "b")
	w.run("", "consume", "--topic", "t", "-q", "-n", "2").want(t, exitOK, "a\nb\n", "")
	w.run("", "consume", "--topic", "t", "-q", "-n", "3").want(t, exitShort, "a\nb\n", "stagebus: 2 of 3 messages: that is the end\n")
	w.run("", "consume", "--topic", "t", "-q", "-n", "3", "--follow", "--timeout", "50ms").want(t, exitShort, "a\nb\n", "2 of 3 messages: the --timeout is over\n")
	w.run("", "consume", "--topic", "t", "-q", "--follow", "--timeout", "50ms").want(t, exitOK, "a\nb\n", "")
	r := w.run("", "consume", "--topic", "missing")
	r.want(t, exitFailure, "", `"missing"`)
	r.want(t, exitFailure, "", "not found")
	w.run("", "consume", "--topic", "fresh", "--create", "-q").want(t, exitOK, "", "")
}

func TestConsumeFrom(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("a", "b")
	between := time.Now().Add(time.Second)
	w.seed(stagebus.Message{Topic: "t", Body: []byte("c"), Time: between.Add(time.Second)})
	for _, c := range []struct{ from, out string }{
		{"earliest", "a\nb\nc\n"},
		{"0", "a\nb\nc\n"},
		{"1", "b\nc\n"},
		{"3", ""},
		{"99", ""},
		{between.Format(time.RFC3339Nano), "c\n"},
		{"1h", "a\nb\nc\n"},
		{"2000-01-01", "a\nb\nc\n"},
	} {
		t.Run(c.from, func(t *testing.T) {
			w.run("", "consume", "--topic", "t", "-q", "--idle", "50ms", "--from", c.from).want(t, exitOK, c.out, "")
		})
	}
}

func TestConsumeSeveralTopics(t *testing.T) {
	w := newWorld(t)
	w.seed(stagebus.Message{Topic: "x", Body: []byte("1")}, stagebus.Message{Topic: "y", Body: []byte("2")})
	r := w.run("", "consume", "--topic", "x", "--topic", "y", "-q")
	if r.code != exitOK || len(r.out) != 4 || !strings.Contains(r.out, "1\n") || !strings.Contains(r.out, "2\n") {
		t.Errorf("%+v", r)
	}
}

func TestConsumeFollowsUntilInterrupted(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("old")
	for _, c := range []struct{ args, out, err string }{
		{"", "old\nnew\n", "nothing is committed"},
		{"--from latest", "new\n", "a private copy of what is sent from now on"},
		{"--group g", "old\nnew\n", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			w := newWorld(t)
			w.seedBodies("old")
			out, errs, stop := w.background(nil, append([]string{"consume", "--topic", "t", "--follow"}, strings.Fields(c.args)...)...)
			if c.args == "--group g" {
				out.await(t, "old\n")
			} else {
				errs.await(t, c.err)
			}
			w.seedBodies("new")
			out.await(t, "new\n")
			if code := stop(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if got := out.String(); got != c.out {
				t.Errorf("got %q, want %q", got, c.out)
			}
			if !strings.Contains(errs.String(), fmt.Sprintf("consumed %s, stopped by a signal\n", plural(strings.Count(c.out, "\n"), "message"))) {
				t.Errorf("standard error %q", errs)
			}
			if got := w.depth("g"); got > 0 {
				t.Errorf("%d printed messages are not settled", got)
			}
		})
	}
}

func TestConsumeRecords(t *testing.T) {
	w := newWorld(t)
	w.seed(stagebus.Message{Topic: "t", Key: []byte("k"), Body: []byte{0xff}, ID: "i"})
	r := w.run("", "consume", "--topic", "t", "--group", "g", "--format", "json")
	var got record
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Topic != "t" || *got.Key.value != "k" || string(got.BodyBase64) != "\xff" || got.ID != "i" || got.Attempt != 1 ||
		*got.Position != (position{"t", 0, 0}) || got.Partition != nil {
		t.Errorf("%s", r.out)
	}
}

// What consume prints, publish reads: the copy is the original.
func TestRecordsRoundTripThroughBrokers(t *testing.T) {
	a, b := newWorld(t), &world{}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	ms := []stagebus.Message{
		{Topic: "t", Body: []byte("plain"), Time: at},
		{Topic: "t", Key: []byte{}, Body: []byte{}, Time: at},
		{Topic: "t", Key: []byte{0xff, 0}, Body: nil, Time: at},
		{Topic: "t", Body: []byte("\x00\xfe\n"), Time: at, Headers: stagebus.Headers{{Key: "b", Value: "\xff"}, {Key: "a", Value: ""}, {Key: "b", Value: "é"}}},
		{
			Topic: "t", Body: []byte(`{"a": "<&>"}`), Time: at, ID: "i", Source: "s", Type: "ty", Subject: "su", ContentType: "application/json",
			ContentEncoding: "identity", CorrelationID: "c", ReplyTo: "r", Audience: "au", Deadline: at.Add(time.Hour), Priority: 3,
		},
	}
	a.seed(ms...)
	lines := a.run("", "consume", "--topic", "t", "-q", "--format", "json")
	lines.want(t, exitOK, lines.out, "")
	t.Run("copy", func(t *testing.T) {
		b = newWorld(t)
		b.run(lines.out, "publish", "--jsonl", "--create", "-q").want(t, exitOK, "", "")
		got := b.records()
		if len(got) != len(ms) {
			t.Fatalf("%d messages", len(got))
		}
		for i := range ms {
			same(t, &ms[i], &got[i])
		}
	})
}

func TestConsumeTemplate(t *testing.T) {
	w := newWorld(t)
	w.seed(stagebus.Message{Topic: "t", Key: []byte("k"), Body: []byte("<b>"), ID: "i", Headers: stagebus.Headers{{Key: "h", Value: "v"}}})
	w.run("", "consume", "--topic", "t", "-q", "--template", `{{.Topic}}/{{.Partition}}/{{.Offset}} {{.Key}} {{.Body}} {{.ID}} {{header "h"}} {{base64 .Body}} {{json .Key}}`).
		want(t, exitOK, "t/0/0 k <b> i v PGI+ \"k\"\n", "")
	// A template that fails at a message prints and settles nothing of it.
	w.run("", "consume", "--topic", "t", "--group", "g", "--template", `{{if .Key}}{{slice .Key 5}}{{end}}`).want(t, exitFailure, "", "print a message of \"t\"")
	if got := w.depth("g"); got != 1 {
		t.Errorf("%d left, want 1", got)
	}
}

func TestFormatForTerminals(t *testing.T) {
	for body, want := range map[string]string{
		"text\twith é\r\n": "text\twith é\r\n\n",
		"\x1b[2J":          "(4 bytes that aren't text: ",
		"\u009b2J":         "(4 bytes that aren't text: ",
		"\xff":             "(1 bytes that aren't text: ",
	} {
		f, err := (&consumeFlags{}).formatter(true, false)
		if err != nil {
			t.Fatal(err)
		}
		p := newPrinter(newBuffer(), f, false)
		if _, err := p.print(t.Context(), []stagebus.Delivery{{Message: stagebus.Message{Body: []byte(body)}}}); err != nil {
			t.Fatal(err)
		}
		if got := p.out.(*buffer).String(); !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %q", body, got)
		}
		asked, err := (&consumeFlags{format: "raw"}).formatter(true, false)
		if err != nil {
			t.Fatal(err)
		}
		p = newPrinter(newBuffer(), asked, false)
		if _, err := p.print(t.Context(), []stagebus.Delivery{{Message: stagebus.Message{Body: []byte(body)}}}); err != nil || p.out.(*buffer).String() != body+"\n" {
			t.Errorf("%q: --format raw got %q, %v", body, p.out, err)
		}
	}
}

// full is a writer that takes so many bytes.
type full struct {
	room int
	err  error
	got  []byte
}

func (f *full) Write(b []byte) (int, error) {
	n := min(f.room, len(b))
	f.room -= n
	f.got = append(f.got, b[:n]...)
	if n < len(b) {
		return n, f.err
	}
	return n, nil
}

// What was not written whole is not settled.
func TestConsumeOutputFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"disk full", os.ErrInvalid, exitFailure, "standard output: invalid argument"},
		{"reader left", &os.PathError{Op: "write", Err: syscallEPIPE}, exitOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.seedBodies("aaaa", "bbbb", "cccc", "dddd")
			out := &full{room: 12, err: c.err}
			errs := newBuffer()
			code := run(t.Context(), []string{"consume", "--topic", "t", "--group", "g"}, streams{strings.NewReader(""), out, errs, brokerAt(w.url)})
			if code != c.code || !strings.Contains(errs.String(), c.want) {
				t.Errorf("exit code %d, standard error %q", code, errs)
			}
			if string(out.got) != "aaaa\nbbbb\ncc" {
				t.Errorf("got %q", out.got)
			}
			w.run("", "consume", "--topic", "t", "--group", "g").want(t, exitOK, "cccc\ndddd\n", "")
		})
	}
}

// A message that a layer could not read is printed as it came, and told of.
func TestConsumeUnreadable(t *testing.T) {
	c := &fakeConsumer{deliveries: []stagebus.Delivery{{Message: stagebus.Message{Body: []byte("x")}, Err: stagebus.ErrInvalid}, {Message: stagebus.Message{Body: []byte("y")}}}}
	out := newBuffer()
	r := &reader{c: c, out: newPrinter(out, raw, true), limit: 2, dst: make([]stagebus.Delivery, 2)}
	if err := r.run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	err := r.verdict(nil)
	if exitCode(err) != exitFailure || err.Error() != "1 of 2 messages could not be read, the first: invalid" || out.String() != "x\ny\n" || c.done != 2 {
		t.Errorf("%v, %q, %d settled", err, out, c.done)
	}
}

func TestConsumeStaleIsToldNotFailed(t *testing.T) {
	c := &fakeConsumer{deliveries: make([]stagebus.Delivery, 3), settle: &stagebus.BatchError{Errs: []error{stagebus.ErrStale, nil, stagebus.ErrStale}}}
	r := &reader{c: c, out: newPrinter(newBuffer(), raw, true), limit: 3, dst: make([]stagebus.Delivery, 3)}
	if err := r.verdict(r.run(t.Context(), 0)); err != nil || r.stale != 2 {
		t.Errorf("%v, %d stale", err, r.stale)
	}
}

// An interrupt is success where nothing else ends the command.
func TestConsumeInterrupted(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--follow", exitOK, "consumed 1 message, stopped by a signal\n"},
		{"--follow --count 2", exitShort, "1 of 2 messages: stopped by a signal\n"},
		{"--from 2030-01-01 --idle 1h", exitFailure, "stopped by a signal before the end; consumed 1 message\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			w := newWorld(t)
			// Partition 1 ends before the start in time that the last case has: its end never comes.
			if err := w.b.Admin().Declare(t.Context(), stagebus.TopicSpec{Name: "t", Partitions: 2}); err != nil {
				t.Fatal(err)
			}
			w.seed(stagebus.Message{Topic: "t", Partition: stagebus.At(0), Body: []byte("a"), Time: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)})
			if strings.Contains(c.args, "2030") {
				w.seed(stagebus.Message{Topic: "t", Partition: stagebus.At(1), Body: []byte("b"), Time: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)})
			}
			out, errs, stop := w.background(nil, append([]string{"consume", "--topic", "t"}, strings.Fields(c.args)...)...)
			out.await(t, "a\n")
			if code := stop(); code != c.code || !strings.Contains(errs.String(), c.want) {
				t.Errorf("exit code %d, standard error %q", code, errs)
			}
		})
	}
}

func TestConsumeTopicTwice(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("a")
	w.run("", "consume", "--topic", "t", "--topic", "t").want(t, exitUsage, "", "named twice")
}

// fakeConsumer has what a test needs.
type fakeConsumer struct {
	deliveries []stagebus.Delivery
	settle     error
	done       int
}

func (c *fakeConsumer) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	if len(c.deliveries) == 0 {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	n := copy(dst, c.deliveries)
	c.deliveries = c.deliveries[n:]
	return n, nil
}

func (c *fakeConsumer) Settle(_ context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	if v == stagebus.Done {
		c.done += len(ts)
	}
	return c.settle
}
func (c *fakeConsumer) Flush(context.Context) error { return nil }
func (c *fakeConsumer) Close(context.Context) error { return nil }
