package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/config"
)

// store returns a store in a fresh directory, with that config.yaml.
func store(t *testing.T, content string) config.Store {
	t.Helper()
	dir := t.TempDir()
	s := config.Locate(func(k string) string {
		return map[string]string{"HOME": dir}[k]
	})
	if content != "" {
		if err := os.MkdirAll(s.Dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Config, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestLocate(t *testing.T) {
	for _, c := range []struct {
		env           map[string]string
		config, state string
	}{
		{map[string]string{"HOME": "/h"}, "/h/.config/stagebus/config.yaml", "/h/.local/state/stagebus/state.yaml"},
		{map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c/stagebus/config.yaml", "/s/stagebus/state.yaml"},
		{map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c"}, "/c/stagebus/config.yaml", "/c/stagebus/state.yaml"},
		{map[string]string{"XDG_CONFIG_HOME": "/c"}, "/c/stagebus/config.yaml", "/c/stagebus/state.yaml"},
		{map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/h/.config/stagebus/config.yaml", "/s/stagebus/state.yaml"},
		{map[string]string{"XDG_STATE_HOME": "/s"}, "", ""},
		{map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, "/h/.config/stagebus/config.yaml", "/h/.local/state/stagebus/state.yaml"},
		{nil, "", ""},
	} {
		if got := config.Locate(func(k string) string { return c.env[k] }); got.Config != c.config || got.State != c.state {
			t.Errorf("%v: %+v", c.env, got)
		}
	}
}

func TestNothingThere(t *testing.T) {
	for _, s := range []config.Store{{}, store(t, ""), store(t, "\n"), store(t, "# only a comment\n"), store(t, "contexts:\n")} {
		f, err := s.Load()
		if err != nil || len(f.Contexts) != 0 || len(f.Names()) != 0 || f.Contexts == nil {
			t.Errorf("%+v, %v", f, err)
		}
		if st, err := s.LoadState(); err != nil || st != (config.State{}) {
			t.Errorf("%+v, %v", st, err)
		}
	}
	if err := (config.Store{}).Save(&config.File{}); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("saved nowhere: %v", err)
	}
}

// What a hand has written stays as it is, but for what is changed; and nobody else may read what is written.
func TestSaveKeepsComments(t *testing.T) {
	s := store(t, `# our brokers
contexts:
  # ask Ann before
  prod.eu: # the dear one
    broker: amqps://app@rabbit.example.org/ # in the cellar
    # from the vault
    password: env:RABBIT_PASSWORD
  beta:
    # for tests
    broker: kafka://localhost:9092
`)
	f, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	f.Contexts["alpha"] = config.Context{Description: "yes: no", Broker: "memory://x", Password: "", ConnectTimeout: "5s"}
	f.Remove("beta")
	if err := s.Save(f); err != nil {
		t.Fatal(err)
	}
	const want = `# our brokers
contexts:
  alpha:
    description: "yes: no"
    broker: memory://x
    connect-timeout: 5s
  # ask Ann before
  prod.eu: # the dear one
    broker: amqps://app@rabbit.example.org/ # in the cellar
    # from the vault
    password: env:RABBIT_PASSWORD
`
	got, err := os.ReadFile(s.Config)
	if err != nil || string(got) != want {
		t.Errorf("%v, got\n%s", err, got)
	}
	info, err := os.Stat(s.Config)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if left, err := filepath.Glob(filepath.Join(s.Dir(), ".*")); err != nil || len(left) != 0 {
		t.Errorf("%v, left behind: %v", err, left)
	}
	again, err := s.Load()
	if err != nil || len(again.Contexts) != 2 || again.Contexts["prod.eu"] != f.Contexts["prod.eu"] {
		t.Errorf("%+v, %v", again, err)
	}
	f.Remove("prod.eu")
	f.Remove("prod.eu")
	if err := s.Save(f); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.Config); err != nil || strings.Contains(string(got), "Ann") || !strings.HasPrefix(string(got), "# our brokers\n") {
		t.Errorf("%v, got\n%s", err, got)
	}
}

func TestSaveThroughLink(t *testing.T) {
	s := store(t, "contexts: {}\n")
	elsewhere := filepath.Join(t.TempDir(), "dotfiles.yaml")
	if err := os.Rename(s.Config, elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, s.Config); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := s.Save(&config.File{Contexts: map[string]config.Context{"a": {Broker: "memory://a"}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(elsewhere); err != nil || !strings.Contains(string(got), "memory://a") {
		t.Errorf("%v, %s", err, got)
	}
	if to, err := os.Readlink(s.Config); err != nil || to != elsewhere {
		t.Errorf("the link is gone: %v, %s", err, to)
	}
}

// A file that can't be replaced is left alone, and the error names it.
func TestSaveFails(t *testing.T) {
	s := store(t, "")
	if err := os.MkdirAll(s.Config, 0o755); err != nil { // a directory has its name
		t.Fatal(err)
	}
	err := s.Save(&config.File{})
	if err == nil || !strings.Contains(err.Error(), s.Config) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestState(t *testing.T) {
	s := store(t, "")
	want := config.State{Current: "a", Previous: "b"}
	if err := s.SaveState(want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadState(); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(s.State, []byte("current: a\nprevous: b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadState(); err == nil || !strings.HasSuffix(err.Error(), `state.yaml:2:1: unknown key "prevous"; did you mean "previous"?`) {
		t.Errorf("got %v", err)
	}
}

// Every mistake of a hand is told with its place, in words that know nothing of Go, and without what may be a password.
func TestMistakes(t *testing.T) {
	for content, want := range map[string]string{
		"contexts:\n  a:\n    brokr: x\n":       `:3:5: unknown key "brokr"; did you mean "broker"?`,
		"contexts:\n  a:\n    colour: x\n":      `:3:5: unknown key "colour"; known here: broker, connect-timeout, description, password`,
		"context:\n  a:\n    broker: x\n":       `:1:1: unknown key "context"; did you mean "contexts"?`,
		"broker: x\n":                           `:1:1: unknown key "broker"; known here: contexts`,
		"contexts:\n  a: [\n":                   `:2:6: not YAML: sequence end token ']' not found`,
		"contexts: 3\n":                         `:1:11: int was used where mapping is expected`,
		"contexts:\n  a:\n    broker: {x: 1}\n": `:3:13: a text is expected here`,
		"contexts:\n a:\n  broker: memory://\n a:\n  broker: memory://\n": `:4:2: not YAML: mapping key "a" already defined at [2:2]`,
		"contexts:\n  a:\n":                                                                           `:2:3: context "a": no broker`,
		"contexts:\n  a:\n    description: x\n":                                                       `:2:3: context "a": no broker`,
		"contexts:\n  -a:\n    broker: memory://\n":                                                   `:2:3: context "-a": a name is letters, digits`,
		"contexts:\n  a:\n    broker: amqp://u:hunter2@h/\n":                                          `:3:13: context "a": the URL has a password, which is not kept in a file: leave it out, as in amqp://u@h/, and say where`,
		"contexts:\n  a:\n    broker: amqp://u:hunter2/@h/\n":                                         `:3:13: context "a": not a URL`,
		"contexts:\n  a:\n    broker: amqp://u@h/?management=http://m:hunter2@h:15672&heartbeat=5s\n": `leave it out, as in amqp://u@h/?heartbeat=5s&management=http%3A%2F%2Fh%3A15672, and`,
		"contexts:\n  a:\n    broker: amqp://u@h/\n    password: hunter2\n":                           `:4:15: context "a": not a reference: it is env:NAME`,
		"contexts:\n  a:\n    broker: amqp://u@h/\n    password: hunter2:x\n":                         `:4:15: context "a": not a reference`,
		"contexts:\n  a:\n    broker: amqp://h/\n    password: env:X\n":                               `:4:15: context "a": whose? write the user into the URL: amqp://USER@h`,
		"contexts:\n  a:\n    broker: memory://\n    connect-timeout: soon\n":                         `:4:22: context "a": "soon" is not a positive duration such as 10s`,
		"contexts:\n  a:\n    broker: memory://\n    connect-timeout: -1s\n":                          `"-1s" is not a positive duration`,
	} {
		s := store(t, content)
		_, err := s.Load()
		var e *config.SyntaxError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), s.Config) {
			t.Errorf("%s\ngot  %v\nwant %s", content, err, want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the password is shown, or it has several lines: %v", content, err)
		}
	}
}

// The default of RabbitMQ, which everybody knows, isn't kept from its user.
func TestGuestIsNoSecret(t *testing.T) {
	c := config.Context{Broker: "amqp://guest:guest@localhost:5672/"}
	if field, err := c.Check(); err != nil {
		t.Errorf("%s: %v", field, err)
	}
}

func TestURL(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"secret": "p/w@1\n", "dos": "p/w@1\r\n", "empty": "\n", "long": strings.Repeat("x", 70<<10)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := config.Lookup{Dir: dir, Getenv: func(k string) string { return map[string]string{"PW": "p/w@1", "HOME": dir}[k] }}
	for _, c := range []struct {
		password config.Secret
		want     string // what the error contains, if it isn't a URL
	}{
		{"", "amqp://app@h/?heartbeat=5s"},
		{"env:PW", "amqp://app:p%2Fw%401@h/?heartbeat=5s"},
		{"file:secret", "amqp://app:p%2Fw%401@h/?heartbeat=5s"},
		{"file:dos", "amqp://app:p%2Fw%401@h/?heartbeat=5s"},
		{"file:~/secret", "amqp://app:p%2Fw%401@h/?heartbeat=5s"},
		{config.Secret("file:" + filepath.Join(dir, "secret")), "amqp://app:p%2Fw%401@h/?heartbeat=5s"},
		{"env:NO_SUCH", "env:NO_SUCH: that environment variable is empty or not set: export NO_SUCH=…"},
		{"file:none", "file:none: open " + filepath.Join(dir, "none")},
		{"file:empty", "file:empty: the file is empty"},
		{"file:long", "that is no password"},
	} {
		ctx := config.Context{Broker: "amqp://app@h/?heartbeat=5s", Password: c.password}
		got, err := ctx.URL(look)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", c.password, got, c.want)
		}
	}
}

func TestAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[config.Secret]string{"env:X": "env:X", "file:/a/b": "file:/a/b", "file:~/x": "file:/home/u/x", "file:x": "file:" + wd + "/x"} {
		if got, err := in.Absolute("/home/u"); string(got) != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"amqp://u:p@h/v":             "amqp://u:xxxxx@h/v",
		"amqp://u@h/":                "amqp://u@h/",
		"kafka://h:1,g:2":            "kafka://h:1,g:2",
		"amqp://u:p/w@h/":            "amqp://u:xxxxx@h/",
		"amqp://u:p@q/w@h/":          "amqp://u:xxxxx@h/",
		"amqp://u:p@h/?heartbeat=1s": "amqp://u:xxxxx@h/?heartbeat=1s",
		"amqp://h/?management=http%3A%2F%2Fu%3Ap%40h": "amqp://h/?management=http%3A%2F%2Fu%3Axxxxx%40h",
		"no URL":          "no URL",
		"memory://":       "memory://",
		"amqp://u:1/w@h/": "amqp://u:xxxxx@h/",
		"amqp://u:1#w@h/": "amqp://u:xxxxx@h/",
		"amqp://u:1?w@h/": "amqp://u:xxxxx@h/",
		`amqp://u:p"w@h/`: "amqp://u:xxxxx@h/",
		"amqp://u:p w@h/": "amqp://u:xxxxx@h/",
		"u:p@h":           "u:xxxxx@h",
		"amqp:u:p@h":      "amqp:xxxxx@h",
		"amqp:/u:p@h":     "amqp:xxxxx@h",
		"://u:p@h":        "://u:xxxxx@h",
		"amqp://h/v@w":    "amqp://h/v@w",
	} {
		if got := config.Redact(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
