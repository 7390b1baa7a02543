package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
)

// offered returns what a shell makes of the answer to what was typed: it leaves out descriptions, the directive, and what begins differently.
func offered(r result, typed string) string {
	var words []string
	answer, _, _ := strings.Cut(r.out, "\n:")
	for line := range strings.SplitSeq(answer, "\n") {
		if word, _, _ := strings.Cut(line, "\t"); strings.HasPrefix(word, typed) {
			words = append(words, word)
		}
	}
	return strings.Join(words, "\n")
}

func TestComplete(t *testing.T) {
	w := newWorld(t)
	for _, topic := range []string{"prompts", "answers", "params"} {
		w.seed(stagebus.Message{Topic: topic})
	}
	h := newHome(t)
	h.words("context add local --broker memory://local")
	h.words("context add prod --broker kafka://h:1")
	env := map[string]string{"STAGEBUS_BROKER": w.url}
	for _, c := range []struct{ args, want string }{
		{"consume --topic ", "answers\nparams\nprompts"},
		{"consume --topic p", "params\nprompts"},
		{"publish -t a", "answers"},
		{"topics describe params p", "prompts"},
		{"topics delete ", "answers\nparams\nprompts"},
		{"topics list --broker a", "amqp://\namqps://"},
		{"consume --format ", "raw\njson\ntemplate"},
		{"consume --from ", "earliest\nlatest"},
		{"consume --output j", "json"},
		{"version --color ", "auto\nalways\nnever"},
		{"context use ", "local\nprod"},
		{"context remove p", "prod"},
		{"topics list --context l", "local"},
		{"completion ", "bash\nfish\npowershell\nzsh"},
	} {
		args := append([]string{"__complete"}, strings.Split(c.args, " ")...)
		if got := offered(h.run(env, args...), args[len(args)-1]); got != c.want {
			t.Errorf("%s: got %q, want %q", c.args, got, c.want)
		}
	}
}

// A broker that isn't there, or a file that is broken, costs a moment and no words.
func TestCompleteWithoutAnswer(t *testing.T) {
	h := newHome(t)
	h.words("context add far --broker kafka://127.0.0.1:1")
	for _, args := range []string{"consume --broker amqp://127.0.0.1:1 --topic ", "consume --context far --topic ", "topics describe --broker nonsense ", "consume --context none -t "} {
		began := time.Now()
		r := h.run(nil, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if r.code != exitOK || r.out != ":4\n" || strings.Contains(r.err, "stagebus:") {
			t.Errorf("%s: %+v", args, r)
		}
		if d := time.Since(began); d > 2*completeTimeout {
			t.Errorf("%s took %v", args, d)
		}
	}
}

// The shells load their scripts, and bash completes with its own.
func TestCompletionScripts(t *testing.T) {
	dir := t.TempDir()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := runWith(t.Context(), "", nil, "completion", shell)
		if r.code != exitOK || r.err != "" || !strings.Contains(r.out, "stagebus") {
			t.Fatalf("%s: %+v", shell, r)
		}
		if err := os.WriteFile(filepath.Join(dir, shell), []byte(r.out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "stagebus")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	for shell, c := range map[string]struct{ program, want string }{
		// What bash does when the tab key is pressed behind "stagebus consume --topic ". The first function is of the package bash-completion.
		"bash": {`_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"; }
			. ./bash && complete -p stagebus >&2 && COMP_WORDS=(stagebus consume --topic "") COMP_CWORD=3 COMP_LINE="stagebus consume --topic " COMP_POINT=25 &&
			__start_stagebus stagebus "" --topic && printf '%s\n' "${COMPREPLY[@]}"`, "t\n"},
		"zsh":  {`autoload -Uz compinit && compinit -u -D && . ./zsh && print $_comps[stagebus]`, "_stagebus\n"},
		"fish": {`source ./fish; and complete --do-complete "stagebus consume --topic "`, "t\n"},
	} {
		t.Run(shell, func(t *testing.T) {
			file, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			x := exec.CommandContext(t.Context(), file, "-c", c.program)
			x.Dir = dir
			x.Env = append(os.Environ(), childVar+"=1", "STAGEBUS_BROKER=memory://child", "HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
			var errs strings.Builder
			x.Stderr = &errs
			out, err := x.Output()
			if err != nil || string(out) != c.want {
				t.Errorf("%v, %q, want %q; %s", err, out, c.want, &errs)
			}
		})
	}
}
