package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/help")

// The help is the interface: a change shows in the diff.
func TestHelp(t *testing.T) {
	for _, args := range []string{"", "publish", "consume", "topics", "topics list", "topics describe", "topics declare", "topics delete", "doctor", "context", "context add", "context use", "context list", "context show", "context remove", "config", "config explain", "man", "version"} {
		name := "stagebus"
		if args != "" {
			name = strings.ReplaceAll(args, " ", "-")
		}
		t.Run(name, func(t *testing.T) {
			r := runWith(t.Context(), "", nil, append(strings.Fields(args), "--help")...)
			if r.code != exitOK || r.err != "" {
				t.Errorf("exit code %d, standard error %q", r.code, r.err)
			}
			file := filepath.Join("testdata", "help", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(r.out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if r.out != string(want) {
				t.Errorf("differs from %s (-update writes it):\n%s", file, r.out)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"publsh", `unknown command "publsh" for "stagebus"; did you mean "publish"?`},
		{"topics lst", `unknown command "lst" for "stagebus topics"; did you mean "list"?`},
		{"publish --nothing x", `unknown flag --nothing for "stagebus publish"`},
		{"publish --count x --topic t y", `--count "x": it is a whole number`},
		{"publish --tpic x", "did you mean --topic?"},
		{"publish --topic", "--topic needs a value"},
		{"publish -z", `unknown flag -z for "stagebus publish"`},
		{"topics list --connect-timeout soon", `--connect-timeout "soon": it is a duration such as 10s`},
		{"publish --priority 300 x", `--priority "300": it is a whole number from 0 to 255`},
		{"publish --stamp=perhaps x", `--stamp "perhaps": it is true or false`},
		{"topics declare t --config x", `--config "x": it is name=value`},
		{"context use a b", `too many arguments, from "b" on: stagebus context use NAME`},
		{"publish a b --topic t", "2 arguments, and the body is one: quote it if it has spaces"},
		{"consume x", `"x": topics are given with --topic: stagebus consume --topic x`},
		{"version x", `too many arguments, from "x" on: stagebus version`},
		{"version --color blue", `--color "blue": it is auto, always or never`},
		{"help publsh", `unknown command "publsh" for "stagebus"; did you mean "publish"?`},
		{"help topics lst", `unknown command "lst" for "stagebus topics"; did you mean "list"?`},
		{"completion nosuch", `unknown command "nosuch" for "stagebus completion"`},
		{"topics describe", "an argument is missing: stagebus topics describe TOPIC..."},
		{"amqp://u:secret@h/ publish", `unknown command "amqp://h/`},

		{"publish x", "no topic: give --topic NAME"},
		{"publish --topic a..b x", `invalid topic "a..b"`},
		{"publish --topic t --count 0 x", "--count"},
		{"publish --topic t --max-bytes 0 x", "--max-bytes"},
		{"publish --topic t --header x y", "name=value"},
		{"publish --topic t --header =x y", "name=value"},
		{"publish --topic t --header content-type=x y", "has its own flag"},
		{"publish --topic t --deadline soon y", "--deadline"},
		{"publish --topic t --partition -1 y", "count from 0"},
		{"publish --topic t --file f y", "both an argument and --file"},
		{"publish --topic t --jsonl y", "--jsonl reads records from"},
		{"publish --topic t y", "no broker: give --broker URL or set STAGEBUS_BROKER"},

		{"consume", "no topic"},
		{"consume --topic -x", `invalid topic "-x"`},
		{"consume --topic t --group a--b", "invalid group"},
		{"consume --topic t --count -1", "negative"},
		{"consume --topic t --from never", "--from"},
		{"consume --topic t --from -5", "--from"},
		{"consume --topic t --from latest", "add --follow"},
		{"consume --topic t --format xml", "raw, json or template"},
		{"consume --topic t --format template", "needs --template"},
		{"consume --topic t --format json --template x", "leave out one"},
		{"consume --topic t --template {{", "unclosed action"},
		{"consume --topic t --template {{.Nothing}}", "can't evaluate field Nothing"},
		{"consume --topic t", "no broker"},
		{"topics list", "no broker"},

		{"topics list --broker amqq://h", `invalid URL scheme "amqq": unknown; did you mean "amqp"?`},
		{"topics list --broker localhost:9092", "it begins with amqp://"},
		{"topics list --broker amqp://u:se/cret@h/", "it is SCHEME://[USER:PASSWORD@]HOST[:PORT]"},
		{"topics list --broker kafka://h:9092?auth_mechanisn=plain", `did you mean "auth_mechanism"?`},
		{"topics list --broker memory:// --output xml", `--output "xml": it is text or json`},
		{"topics declare a--b --broker memory://", "invalid topic"},
		{"topics declare queue:x --broker memory://", "not declared here"},
		{"topics delete a..b --yes --broker memory://", "invalid topic"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := runWith(t.Context(), "", nil, strings.Fields(c.args)...)
			r.want(t, exitUsage, "", c.want)
			if n := strings.Count(r.err, "\n"); n != 1 {
				t.Errorf("%d lines", n)
			}
			for _, secret := range []string{"secret", "cret"} {
				if strings.Contains(r.err, secret) {
					t.Errorf("the password is shown: %s", r.err)
				}
			}
		})
	}
}

func TestBrokerUnreachable(t *testing.T) {
	for _, url := range []string{"amqp://u:hunter2@127.0.0.1:1/", "kafka://u:hunter2@127.0.0.1:1", "kafka://no-such-host.invalid:9092", "amqp://no-such-host.invalid/"} {
		t.Run(url, func(t *testing.T) {
			for _, args := range [][]string{{"publish", "--topic", "t", "x"}, {"consume", "--topic", "t"}, {"topics", "list"}} {
				r := runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": url}, append(args, "--connect-timeout", "5s")...)
				r.want(t, exitFailure, "", "broker unavailable")
				if strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "hunter2") {
					t.Errorf("standard error %q: want one line without the password", r.err)
				}
			}
		})
	}
}

func TestInterruptedBeforeConnecting(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	runWith(ctx, "", map[string]string{"STAGEBUS_BROKER": "memory://"}, "topics", "list").want(t, exitFailure, "", "stopped by a signal")
}

func TestFlagBeatsEnvironment(t *testing.T) {
	runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": "nonsense"}, "topics", "list", "--broker", "memory://").want(t, exitOK, "", "")
}

func TestVersion(t *testing.T) {
	r := runWith(t.Context(), "", nil, "version")
	if r.code != exitOK || r.err != "" || !strings.HasPrefix(r.out, "stagebus ") || !strings.Contains(r.out, " go1.") {
		t.Errorf("%+v", r)
	}
	info := &debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}, {Key: "GOOS", Value: "linux"}, {Key: "GOARCH", Value: "arm64"},
	}}
	if got, want := version(info), "stagebus v1.2.3 0123456789ab+changes go1.26 linux/arm64"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := version(nil); got != "stagebus (unknown build)" {
		t.Error(got)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\n":                              "a; b",
		"amqp://u:p@h/ and kafka://x:y@z, ok": "amqp://h/ and kafka://z, ok",
		`parse "amqp://u:p/w@q@h/": bad`:      `parse "amqp://h/": bad`,
		"amqp://app@h/ and amqp://USER@h":     "amqp://app@h/ and amqp://USER@h",
		"mail me@example.org":                 "mail me@example.org",
		"it is SCHEME://[USER:PASSWORD@]HOST": "it is SCHEME://[USER:PASSWORD@]HOST",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
