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
	for _, args := range []string{"", "publish", "consume", "bench", "bench publish", "bench consume", "bench both", "bench request", "topics", "topics list", "topics describe", "topics declare", "topics delete", "demo", "dev", "doctor", "context", "context add", "context use", "context list", "context show", "context remove", "config", "config explain", "man", "version"} {
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
		`parse "amqp://u:p\"w\\@h/": bad`:     `parse "amqp://h/": bad`,
		"amqp://app@h/ and amqp://USER@h":     "amqp://app@h/ and amqp://USER@h",
		"mail me@example.org":                 "mail me@example.org",
		"it is SCHEME://[USER:PASSWORD@]HOST": "it is SCHEME://[USER:PASSWORD@]HOST",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
