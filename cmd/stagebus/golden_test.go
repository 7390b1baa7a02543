package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

// golden is a command line whose every word is kept in testdata/golden: what a newcomer may type and what he is told.
type golden struct {
	line  string // as in a shell, with quotes
	in    string // standard input
	env   string // NAME=VALUE NAME=VALUE
	setup func(*home, *world)
}

// goldens are command lines by the file they are in, which begins with the exit code of all of them. Where a broker is needed it is
// memory, with STAGEBUS_BROKER set by the setup; real brokers have theirs in the module integration.
var goldens = map[string][]golden{
	"0-results": {
		{line: "publish --topic t --create hello", setup: empty},
		{line: "publish --topic t --create", in: "one\ntwo\n", setup: empty},
		{line: "publish --topic t --quiet hello", setup: topic},
		{line: "consume --topic t", setup: messages},
		{line: "consume --topic t --group g --create -n 1", setup: messages},
		{line: "consume --topic t --template '{{.Offset}} {{.Body}}'", setup: messages},
		{line: "consume --topic t", setup: topic},
		{line: "topics declare a b --partitions 2", setup: empty},
		{line: "topics list", setup: messages},
		{line: "topics describe t", setup: messages},
		{line: "topics delete t --yes", setup: messages},
		{line: "context list"},
		{line: "context add local --broker kafka://localhost:9092"},
		{line: "context list", setup: contextsSet},
		{line: "context use prod", setup: contextsSet},
		{line: "context show prod", setup: contextsSet},
		{line: "context remove prod", setup: contextsSet},
		{line: "config explain", setup: contextsSet},
		{line: "config explain --broker amqp://u:hunter2@h/?management=http%3A%2F%2Fu%3Ahunter2%40h"},
	},
	"1-dev": {
		{line: "dev", setup: devDirLocked},
		{line: "dev --ephemeral --listen 192.0.2.1:9092 --advertise 192.0.2.1"},
	},
	"2-dev": {
		{line: "dev", setup: devDirForeign},
		{line: "dev --ephemeral --listen 0.0.0.0:9092"},
		{line: "dev --ephemeral --listen 9092"},
		{line: "dev --ephemeral --dir d"},
		{line: "dev --partitions 0"},
		{line: "dev --max-bytes 1MiB"},
		{line: "dev --topic a/b"},
		{line: "dev --topic t:many"},
		{line: "dev prompts"},
	},
	"1-failures": {
		{line: "publish --topic nosuch hello", setup: empty},
		{line: "publish --topic nosuch", in: "one\ntwo\n", setup: empty},
		{line: "consume --topic nosuch", setup: empty},
		{line: "consume --topic nosuch --group g --follow", setup: empty},
		{line: "topics describe nosuch", setup: empty},
		{line: "topics delete nosuch --yes", setup: empty},
		{line: "topics declare t --partitions 7", setup: topic},
		{line: "publish --topic t --file nosuch.txt", setup: topic},
		{line: "publish --topic t --file /", setup: topic},
		{line: "publish --topic t --max-bytes 5", in: "short\ntoo long\n", setup: topic},
		{line: "publish --topic t --partition 9 hello", setup: topic},
		{line: "publish --topic t --header name=" + strings.Repeat("x", 70_000) + " hello", setup: topic},
		{line: "publish --topic t --broker memory://?max_message=10 --create 'more than ten bytes'"},
		{line: "publish --jsonl", in: `{"topic":"t","body":"1"}` + "\n" + `{"topic":"t","body":2}` + "\n", setup: topic},
		{line: "publish --jsonl", in: `{"topic":"t","boddy":"1"}` + "\n", setup: topic},
		{line: "publish --jsonl", in: `{"topic":"t"}` + "\n", setup: topic},
		{line: "publish --jsonl", in: `{"topic":"t","body":"1"` + "\n", setup: topic},
		{line: "publish --jsonl", in: "hello\n", setup: topic},
		{line: "publish --jsonl", in: `{"body":"1"}` + "\n", setup: topic},
		{line: "publish --jsonl", in: `{"topic":"t","body":"1","headers":{"a":"b"}}` + "\n", setup: topic},
		{line: "publish --jsonl", in: `{"topic":"t","body":"1","time":"yesterday"}` + "\n", setup: topic},
		{line: "consume --topic t --template '{{.Offset}} {{index .Headers 5}}'", setup: messages},
		{line: "topics list --broker amqp://u:hunter2@127.0.0.1:1/"},
		{line: "topics list --broker kafka://u:hunter2@127.0.0.1:1"},
		{line: "publish --topic t --broker amqp://u:hunter2@127.0.0.1:1/ x"},
		{line: "consume --topic t --broker kafka://127.0.0.1:1"},
		{line: "topics list --broker amqp://no-such-host.invalid/"},
		{line: "topics list --broker kafka://no-such-host.invalid"},
		{line: "topics list", setup: contextsSet, env: "PROD_PASSWORD=hunter2 STAGEBUS_CONTEXT=prod"},
		{line: "man /dev/null/x"},
	},
	"2-usage": {
		{line: "publsh"},
		{line: "topics lst"},
		{line: "help publsh"},
		{line: "help topics lst"},
		{line: "completion nosuch"},
		{line: "amqp://u:hunter2@h/ publish"},
		{line: "publish --tpic t x"},
		{line: "publish --nothing x"},
		{line: "publish -z"},
		{line: "publish --topic"},
		{line: "publish --topic t --count x y"},
		{line: "publish --priority 300 --topic t x"},
		{line: "publish --stamp=perhaps --topic t x"},
		{line: "publish --topic t --timeout soon x"},
		{line: "publish prompts hello"},
		{line: "publish x"},
		{line: "publish --topic a..b x"},
		{line: "publish --topic t --count 0 x"},
		{line: "publish --topic t --max-bytes 0 x"},
		{line: "publish --topic t --header x y"},
		{line: "publish --topic t --header content-type=x y"},
		{line: "publish --topic t --deadline soon y"},
		{line: "publish --topic t --partition -1 y"},
		{line: "publish --topic t --file f y"},
		{line: "publish --topic t --jsonl y"},
		{line: "publish --topic t y"},
		{line: "consume"},
		{line: "consume prompts"},
		{line: "consume --topic t"},
		{line: "consume --topic -x"},
		{line: "consume --topic t --group a--b"},
		{line: "consume --topic t --count -1"},
		{line: "consume --topic t --from never"},
		{line: "consume --topic t --from -5"},
		{line: "consume --topic t --from latest"},
		{line: "consume --topic t --format xml"},
		{line: "consume --topic t --format template"},
		{line: "consume --topic t --format json --template x"},
		{line: "consume --topic t --template {{"},
		{line: "consume --topic t --template {{.Nothing}}"},
		{line: "consume --topic t --template '{{nothing .Key}}'"},
		{line: "consume --topic t --template {{.Ofset}}"},
		{line: "consume --topic t --template '{{range .Headers}}{{.Key}}{{$.Boddy}}{{end}}'"},
		{line: "consume --topic t --template '{{header}}'"},
		{line: "topics list --metrics nonsense", setup: topic},
		{line: "consume --topic t --topic t", setup: messages},
		{line: "consume --topic queue:t --broker kafka://127.0.0.1:1", env: "STAGEBUS_CONNECT_TIMEOUT=soon"},
		{line: "topics list"},
		{line: "topics list x"},
		{line: "topics describe"},
		{line: "topics list --output xml"},
		{line: "topics list", env: "STAGEBUS_OUTPUT=xml"},
		{line: "topics list --color blue"},
		{line: "topics list --connect-timeout 10"},
		{line: "topics list --broker amq://localhost"},
		{line: "topics list --broker localhost:9092"},
		{line: "topics list --broker amqp://u:hun/ter2@h/"},
		{line: "topics list --broker kafka://h:9092?auth_mechanisn=plain"},
		{line: "topics list --broker amqp://h/?heartbeat=5"},
		{line: "topics list --broker kafkas://h:9092?cacertfile=/no/such/file"},
		{line: "topics list --broker kafka://h:9092/topic"},
		{line: "topics declare a--b --broker memory://"},
		{line: "topics declare queue:x --broker memory://"},
		{line: "topics declare t --config x --broker memory://"},
		{line: "topics declare t --partitions -1 --broker memory://"},
		{line: "topics delete a..b --yes --broker memory://"},
		{line: "topics delete t", setup: messages},
		{line: "man"},
	},
	"2-contexts": {
		{line: "context us local"},
		{line: "context use"},
		{line: "context use local"},
		{line: "context use lokal", setup: contextsSet},
		{line: "context use nothing-like-it", setup: contextsSet},
		{line: "context use -", setup: contextsSet},
		{line: "context show"},
		{line: "context remove prd", setup: contextsSet},
		{line: "context add"},
		{line: "context add x"},
		{line: "context add 'my broker' --broker memory://"},
		{line: "context add local --broker memory://", setup: contextsSet},
		{line: "context add prod --broker amqps://app:hunter2@rabbit.example.org/"},
		{line: "context add prod --broker amqps://app@rabbit.example.org/ --password hunter2"},
		{line: "context add prod --broker amqps://rabbit.example.org/ --password env:X"},
		{line: "context add x --broker amq://h/"},
		{line: "context add x --broker kafka://h:9092 --connect-timeout 5"},
		{line: "topics list", setup: contextsSet, env: "STAGEBUS_CONTEXT=prod"},
		{line: "topics list --context prdo", setup: contextsSet},
		{line: "topics list --context prod --broker memory://", setup: contextsSet},
		{line: "topics list --context file", setup: contextsSet},
		{line: "topics list", setup: func(h *home, w *world) {
			contextsSet(h, w)
			h.words("context use prod")
			h.edit(`contexts: {"local": {"broker": "memory://"}}`)
		}},
		{line: "topics list", setup: func(h *home, w *world) { contextsSet(h, w); h.words("context remove local") }},
		{line: "topics list", setup: broken("contexts:\n  local:\n    brokr: memory://\n")},
		{line: "topics list", setup: broken("contexts:\n  local:\n    broker: memory://\n   password: x\n")},
		{line: "topics list", setup: broken("contexts:\n  local:\n    broker: amqp://u:hunter2@h/\n")},
		{line: "context list", setup: broken("contexts:\n  - local\n")},
		{line: "context list", setup: broken("contexts:\n  local: memory://\n")},
		{line: "config explain", setup: broken("contexts:\n  local:\n    broker: memory://\n    connect-timeout: 5\n")},
	},
	"3-short": {
		{line: "consume --topic t -n 5", setup: messages},
		{line: "consume --topic t -n 1", setup: topic},
		{line: "consume --topic t -n 5 --follow --timeout 1s", setup: messages},
	},
}

func empty(h *home, w *world) { h.env["STAGEBUS_BROKER"] = w.url }

func topic(h *home, w *world) {
	empty(h, w)
	if err := w.b.Admin().Declare(w.t.Context(), stagebus.TopicSpec{Name: "t"}); err != nil {
		w.t.Fatal(err)
	}
}

func messages(h *home, w *world) {
	topic(h, w)
	w.seedBodies("one", "two")
}

func contextsSet(h *home, _ *world) {
	for _, line := range []string{
		"context add local --broker kafka://localhost:9092",
		"context add prod --broker amqp://app@127.0.0.1:1/ --password env:PROD_PASSWORD --connect-timeout 3s",
		"context add file --broker amqp://app@127.0.0.1:1/ --password file:/no/such/file",
	} {
		h.words(line).want(h.t, exitOK, "", "added")
	}
}

func broken(content string) func(*home, *world) {
	return func(h *home, w *world) { contextsSet(h, w); h.edit(content) }
}

// edit replaces config.yaml.
func (h *home) edit(content string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.env["HOME"], ".config", "stagebus", "config.yaml"), []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Each message that somebody may meet, with standard output and standard error apart, as text and as JSON.
func TestGolden(t *testing.T) {
	for name, cases := range goldens {
		t.Run(name, func(t *testing.T) {
			code := int(name[0] - '0')
			var got bytes.Buffer
			for i, g := range cases {
				t.Run(g.line[:min(len(g.line), 60)], func(t *testing.T) {
					shown := g.line
					if len(shown) > 200 {
						shown = shown[:60] + "…" + shown[len(shown)-10:]
					}
					fmt.Fprintf(&got, "$ %s%s%s\n", shown, nonEmpty(" < ", strings.ReplaceAll(g.in, "\n", "⏎")), nonEmpty("   # ", g.env))
					for _, output := range []string{"text", "json"} {
						r := g.run(t, fmt.Sprintf("golden%s%d%s", name, i, output), output)
						r.check(t, code, output)
						streamLines(&got, output, "out", r.out)
						streamLines(&got, output, "err", r.err)
					}
					got.WriteByte('\n')
				})
			}
			compareGolden(t, filepath.Join("testdata", "golden", name+".golden"), got.Bytes())
		})
	}
}

func (g *golden) run(t *testing.T, broker, output string) result {
	t.Helper()
	b := openMemory(broker)
	defer b.Close(t.Context()) //nolint:errcheck // memory
	w := &world{t, b, "memory://" + broker}
	h := newHome(t)
	if g.setup != nil {
		g.setup(h, w)
	}
	env := map[string]string{}
	for _, e := range strings.Fields(g.env) {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	maps.Copy(h.env, env)
	args := shellWords(g.line)
	if output == "json" {
		args = append([]string{"--output", "json"}, args...)
	}
	r := runWith(t.Context(), g.in, h.env, args...)
	normal := strings.NewReplacer(h.env["HOME"], "HOME", w.url, "memory://BROKER")
	r.out, r.err = sentAt.ReplaceAllString(normal.Replace(r.out), `"time":"TIME"`), resolver.ReplaceAllString(normal.Replace(r.err), "$1: …")
	return r
}

var sentAt = regexp.MustCompile(`"time":"[^"]*"`)

// resolver is what the system's resolver says, which differs from machine to machine.
var resolver = regexp.MustCompile(`(lookup no-such-host\.invalid)[^;"\n]*`)

// check holds what is true of all messages.
func (r result) check(t *testing.T, code int, output string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d: %+v", r.code, code, r)
	}
	if strings.Contains(r.out+r.err, "ter2") {
		t.Errorf("the password is shown: %+v", r)
	}
	errors := 0
	for line := range strings.Lines(r.err) {
		if output == "text" {
			if !strings.HasPrefix(line, "stagebus: ") {
				t.Errorf("a line of standard error without the program's name: %q", line)
			}
			continue
		}
		var said struct {
			Error, Kind, Note string
			Code              int
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || (said.Error == "") == (said.Note == "") {
			t.Errorf("%v, a line of standard error is neither an error nor a note: %q", err, line)
		}
		if said.Error != "" {
			errors++
			if said.Code != code || said.Kind == "" || said.Kind == "failure" {
				t.Errorf("exit code %d, and it says %+v", r.code, said)
			}
		}
	}
	if output == "json" && errors != min(code, 1) {
		t.Errorf("%d errors: %s", errors, r.err)
	}
}

// shellWords splits a line as a shell does that knows single quotes only.
func shellWords(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 0 {
			words = append(words, strings.Fields(part)...)
		} else {
			words = append(words, part)
		}
	}
	return words
}

func nonEmpty(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// streamLines writes each line of a stream with the stream's name before it.
func streamLines(w *bytes.Buffer, output, stream, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "%-4s %s| %s\n", output, stream, strings.TrimSuffix(line, "\n"))
	}
}

// difference shows the lines of got that want doesn't have at their place, up to a few.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	for i, n := 0, 0; i < max(len(g), len(w)) && n < 5; i++ {
		var left, right string
		if i < len(g) {
			left = g[i]
		}
		if i < len(w) {
			right = w[i]
		}
		if left != right {
			fmt.Fprintf(&b, "line %d:\n got  %s\n want %s\n", i+1, left, right)
			n++
		}
	}
	return b.String()
}
