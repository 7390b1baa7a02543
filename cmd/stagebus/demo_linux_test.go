package main

import (
	"io"
	"strings"
	"testing"
)

// At a terminal the last line changes, with a bar; what stays goes above it in whole lines, and nothing of it is left at the end.
func TestDemoAtTerminal(t *testing.T) {
	for _, env := range []map[string]string{{}, {"NO_COLOR": "1"}} {
		keyboard, tty := openTerminal(t)
		shown := newBuffer()
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			_, _ = io.Copy(shown, keyboard) // ends with an error when the other side is closed
		}()
		out := newBuffer()
		code := run(t.Context(), []string{"demo", "--text", smallText(t), "--size", "small", "--steps", "30"}, streams{strings.NewReader(""), out, tty, func(k string) string { return env[k] }})
		if code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if err := tty.Close(); err != nil {
			t.Fatal(err)
		}
		<-copied
		s := shown.String()
		lines := strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
		if !strings.HasSuffix(s, eraseLine) {
			t.Errorf("something is left on the last line: %q", lines[len(lines)-1])
		}
		for _, line := range lines[:len(lines)-1] {
			if at := strings.LastIndex(line, eraseLine); at >= 0 {
				line = line[at+len(eraseLine):]
			}
			if !strings.HasPrefix(line, "stagebus: ") {
				t.Errorf("what stays is %q", line)
			}
		}
		for _, want := range []string{eraseLine + "stagebus: step 30 of 30: loss ", "█ step 30 of 30: loss ", " messages/s"} {
			if plainText := strings.NewReplacer(green, "", plain, "").Replace(s); !strings.Contains(plainText, want) {
				t.Errorf("%q was never shown", want)
			}
		}
		if coloured := strings.Contains(s, green); coloured != (env["NO_COLOR"] == "") {
			t.Errorf("with %v coloured is %v", env, coloured)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Error("standard output, a file, is coloured")
		}
	}
}

// Objects are for programs, which know nothing of a line that changes.
func TestDemoJSONAtTerminal(t *testing.T) {
	_, tty := openTerminal(t)
	for _, c := range []struct {
		output string
		live   bool
	}{{"text", true}, {"json", false}} {
		p := &program{streams: streams{err: &syncWriter{w: tty}, getenv: func(string) string { return "" }}, output: c.output}
		if v := newDemoView(p); (v.live != nil) != c.live {
			t.Errorf("--output %s: the line changes: %v", c.output, !c.live)
		}
	}
}
