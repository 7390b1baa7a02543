package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// home is a user with a home directory, empty at first.
type home struct {
	t   *testing.T
	env map[string]string
}

func newHome(t *testing.T) *home {
	return &home{t, map[string]string{"HOME": t.TempDir()}}
}

// run runs a command line, with that environment besides.
func (h *home) run(env map[string]string, args ...string) result {
	h.t.Helper()
	all := maps.Clone(h.env)
	maps.Copy(all, env)
	r := runWith(h.t.Context(), "", all, args...)
	r.out = strings.ReplaceAll(r.out, h.env["HOME"], "HOME")
	r.err = strings.ReplaceAll(r.err, h.env["HOME"], "HOME")
	return r
}

func (h *home) words(args string) result { h.t.Helper(); return h.run(nil, strings.Fields(args)...) }

func TestContexts(t *testing.T) {
	h := newHome(t)
	h.words("context list").want(t, exitOK, "", "no contexts yet: stagebus context add NAME --broker URL")
	h.words("context show").want(t, exitUsage, "", "there is no current context")
	h.words("context use -").want(t, exitUsage, "", "no context before")
	h.words("context use a").want(t, exitUsage, "", `context "a" (the argument) doesn't exist; there is none yet: stagebus context add a --broker URL`)

	h.words("context add local --broker memory://local").want(t, exitOK, "", `context "local" added; it is the current one`)
	h.words("context add prod --broker amqps://app@rabbit.example.org/ --password env:PW --connect-timeout 3s").want(t, exitOK, "", `context "prod" added`)
	h.run(nil, "context", "add", "old", "--broker", "kafka://h:9092", "--description", "to be shut down", "-q").want(t, exitOK, "", "")
	h.words("context list").want(t, exitOK, "* local  memory://local\n  old    kafka://h:9092                   to be shut down\n  prod   amqps://app@rabbit.example.org/\n", "")
	h.words("context use prod").want(t, exitOK, "", `context "prod" used; it is the current one`)
	h.words("context show").want(t, exitOK, "name             prod\nbroker           amqps://app@rabbit.example.org/\npassword         env:PW\nconnect-timeout  3s\n", "")
	h.words("context use -").want(t, exitOK, "", `context "local" used`)
	h.words("context use -").want(t, exitOK, "", `context "prod" used`)
	h.words("context use old --output json").want(t, exitOK, `{"context":"old","current":true,"used":true}`+"\n", "")
	h.run(map[string]string{"STAGEBUS_BROKER": "x"}, "context", "use", "local").want(t, exitOK, "", "STAGEBUS_BROKER is set and beats the current context")

	h.words("context add local --broker memory://other").want(t, exitUsage, "", `context "local" exists; --force replaces it`)
	h.words("context add local --broker memory://other --force").want(t, exitOK, "", "added")
	h.words("context show local --output json").want(t, exitOK, `{"name":"local","current":true,"broker":"memory://other"}`+"\n", "")
	h.words("context show locla").want(t, exitUsage, "", `did you mean "local"?`)
	h.words("context remove local nothing").want(t, exitUsage, "", `stagebus: context "nothing" (the argument) doesn't exist; known are local, old, prod`)
	h.words("context remove local").want(t, exitOK, "", `context "local" removed`)
	h.words("context list --output json").want(t, exitOK,
		`{"name":"old","current":false,"description":"to be shut down","broker":"kafka://h:9092"}`+"\n"+
			`{"name":"prod","current":false,"broker":"amqps://app@rabbit.example.org/","password":"env:PW","connect_timeout":"3s"}`+"\n", "")
	h.words("topics list").want(t, exitUsage, "", "no broker: choose one with stagebus context use old|prod")
	h.words("context use -").want(t, exitOK, "", `context "old" used`)
}

// What the shell says holds for its commands, and is not kept with a context.
func TestContextAddFromShell(t *testing.T) {
	h := newHome(t)
	h.run(map[string]string{"STAGEBUS_CONNECT_TIMEOUT": "33s"}, "context", "add", "a", "--broker", "memory://a").want(t, exitOK, "", "added")
	h.words("context show a").want(t, exitOK, "name    a\nbroker  memory://a\n", "")
}

func TestContextRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"add":                                   "an argument is missing: stagebus context add NAME --broker URL",
		"add x":                                 "no broker: give --broker URL",
		"add -- -x":                             `context "-x": a name is letters`,
		"add x --broker amq://h":                `--broker: invalid URL scheme "amq": unknown; did you mean "amqp"?`,
		"add x --broker amqp://h/?heartbeet=1s": `did you mean "heartbeat"?`,
		"add prod.eu --broker amqps://u:hunter2@h":            `stagebus context add prod.eu --broker 'amqps://u@h' --password env:PROD_EU_PASSWORD`,
		"add x --broker kafka://h --password hunter2":         "--password: not a reference: it is env:NAME (an environment variable) or file:PATH",
		"add x --broker amqp://h --password env:X":            "--password: whose? write the user into the URL: amqp://USER@h",
		"add x --broker kafka://h:1 --connect-timeout hunter": `--connect-timeout: "hunter" is not a positive duration`,
		"use": "an argument is missing: stagebus context use NAME|-",
	} {
		h := newHome(t)
		r := h.words("context " + args)
		r.want(t, exitUsage, "", want)
		if strings.Contains(r.err, "hunter2") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: the password is shown, or it has several lines: %s", args, r.err)
		}
		if _, err := os.Stat(filepath.Join(h.env["HOME"], ".config")); err == nil {
			t.Errorf("%s: something was written", args)
		}
	}
}

// Flags beat the environment, which beats the context.
func TestPrecedence(t *testing.T) {
	h := newHome(t)
	for _, name := range []string{"current", "named", "meant"} {
		h.words("context add " + name + " --broker memory://" + name + " --connect-timeout 3s")
	}
	h.words("context add secret --broker amqp://app@127.0.0.1:1/ --password env:PW")
	for _, c := range []struct {
		env, args, broker, from, timeout string
	}{
		{"", "", "memory://current", `context "current" (the current context)`, "3s"},
		{"STAGEBUS_CONTEXT=meant", "", "memory://meant", `context "meant" (STAGEBUS_CONTEXT)`, "3s"},
		{"STAGEBUS_CONTEXT=meant STAGEBUS_BROKER=memory://env", "", "memory://env", "STAGEBUS_BROKER", "10s"},
		{"STAGEBUS_CONTEXT=meant STAGEBUS_BROKER=memory://env", "--context named", "memory://named", `context "named" (--context)`, "3s"},
		{"STAGEBUS_CONTEXT=meant STAGEBUS_BROKER=memory://env", "--broker memory://flag", "memory://flag", "--broker", "10s"},
		{"STAGEBUS_CONNECT_TIMEOUT=4s", "", "memory://current", `context "current" (the current context)`, "4s"},
		{"STAGEBUS_CONNECT_TIMEOUT=4s", "--connect-timeout 5s", "memory://current", `context "current" (the current context)`, "5s"},
		{"STAGEBUS_BROKER=amqp://u:hunter2@h/", "", "amqp://u:xxxxx@h/", "STAGEBUS_BROKER", "10s"},
	} {
		env := map[string]string{}
		for _, e := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		r := h.run(env, append([]string{"config", "explain", "--output", "json"}, strings.Fields(c.args)...)...)
		for _, want := range []string{
			`{"name":"broker","value":"` + c.broker + `","from":"` + strings.ReplaceAll(c.from, `"`, `\"`) + `"}`,
			`{"name":"connect-timeout","value":"` + c.timeout + `",`,
			`{"name":"config file","value":"HOME/.config/stagebus/config.yaml","from":"exists"}`,
		} {
			if r.code != exitOK || r.err != "" || !strings.Contains(r.out, want+"\n") && !strings.Contains(r.out, want) {
				t.Errorf("%s %s: %+v, want %s", c.env, c.args, r, want)
			}
		}
	}
	h.words("topics list").want(t, exitOK, "", "")
	h.words("topics list --context named --broker memory://").want(t, exitUsage, "", "both --broker and --context: give one of them")
	h.words("topics list --context mean").want(t, exitUsage, "", `context "mean" (--context) doesn't exist; did you mean "meant"?`)
	h.words("topics list --context secret").want(t, exitUsage, "", `context "secret": password: env:PW: that environment variable is empty or not set: export PW=…`)
	r := h.run(map[string]string{"PW": "hunter2"}, "topics", "list", "--context", "secret")
	r.want(t, exitFailure, "", "broker unavailable")
	if strings.Contains(r.err, "hunter2") {
		t.Error("the password is shown")
	}
}

func TestExplain(t *testing.T) {
	h := newHome(t)
	r := h.words("config explain")
	if got, want := strings.Join(strings.Fields(r.out), " "), "broker none (built-in) connect-timeout 10s (built-in) output text (built-in) color no (not a terminal) progress auto (built-in) "+
		"config file HOME/.config/stagebus/config.yaml (doesn't exist) state file HOME/.local/state/stagebus/state.yaml (doesn't exist)"; got != want || r.code != exitOK || r.err != "" {
		t.Errorf("%+v, want %s", r, want)
	}
	h.words("context add prod --broker amqps://app@h/ --password env:PW")
	for pw, found := range map[string]string{"": "it can't be read", "x": "it is there"} {
		r = h.run(map[string]string{"PW": pw, "NO_COLOR": "1", "STAGEBUS_OUTPUT": "json"}, "config", "explain")
		for _, want := range []string{
			`{"name":"password","value":"env:PW","from":"context \"prod\" (the current context); ` + found + `"}`,
			`{"name":"output","value":"json","from":"STAGEBUS_OUTPUT"}`,
			`{"name":"color","value":"no","from":"NO_COLOR"}`,
		} {
			if !strings.Contains(r.out, want+"\n") {
				t.Errorf("%+v, want %s", r, want)
			}
		}
	}
	h.run(map[string]string{"STAGEBUS_COLOR": "blue"}, "version").want(t, exitUsage, "", "STAGEBUS_COLOR=blue: it is auto, always or never")
	h.run(map[string]string{"STAGEBUS_CONNECT_TIMEOUT": "-1s"}, "topics", "list").want(t, exitUsage, "", "STAGEBUS_CONNECT_TIMEOUT -1s: it is positive, such as 10s")
	h.words("topics list --connect-timeout 0").want(t, exitUsage, "", "--connect-timeout 0s: it is positive, such as 10s")
	h.run(map[string]string{"STAGEBUS_CONNECT_TIMEOUT": "soon"}, "topics", "list").want(t, exitUsage, "", "STAGEBUS_CONNECT_TIMEOUT=soon: it is a duration such as 10s or 1m30s")
}

// A file that a hand has broken is told by its line, by whatever needs it and by nothing else.
func TestBrokenConfig(t *testing.T) {
	h := newHome(t)
	h.words("context add local --broker memory://local -q").want(t, exitOK, "", "")
	file := filepath.Join(h.env["HOME"], ".config", "stagebus", "config.yaml")
	if err := os.WriteFile(file, []byte("contexts:\n  local:\n    brokr: memory://\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"context list", "context use local", "context add x --broker memory://", "topics list", "topics list --context local", "config explain"} {
		h.words(args).want(t, exitUsage, "", `HOME/.config/stagebus/config.yaml:3:5: unknown key "brokr"; did you mean "broker"?`)
	}
	h.words("topics list --broker memory://").want(t, exitOK, "", "")
	if r := h.words("version"); r.code != exitOK {
		t.Errorf("%+v", r)
	}
}
