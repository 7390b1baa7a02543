package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo terminal: what is typed into keyboard is read from tty, what is written to tty shows on keyboard.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() }) //nolint:errcheck // a terminal
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() }) //nolint:errcheck // a terminal
	return keyboard, tty
}

// A terminal is read only if that was asked for: otherwise the command would hang, and nobody know why.
func TestPublishFromTerminal(t *testing.T) {
	w := newWorld(t)
	keyboard, tty := openTerminal(t)
	errs := newBuffer()
	s := streams{tty, newBuffer(), errs, brokerAt(w.url)}
	if code := run(t.Context(), []string{"publish", "--topic", "t", "--create"}, s); code != exitUsage || !strings.Contains(errs.String(), "nothing to publish: give the body as an argument") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if code := run(t.Context(), []string{"publish", "--topic", "t", "--create", "body"}, s); code != exitOK {
		t.Errorf("exit code %d, %q", code, errs)
	}
	feedIn(t, keyboard, "typed\n\x04")
	if code := run(t.Context(), []string{"publish", "--topic", "t", "-"}, s); code != exitOK {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if got := w.bodies(); got != "body\ntyped\n" {
		t.Errorf("got %q", got)
	}
}

// Nothing that isn't a terminal is refused, /dev/null for one: cron and loops have it.
func TestPublishFromDevNull(t *testing.T) {
	w := newWorld(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // only read
	errs := newBuffer()
	if code := run(t.Context(), []string{"publish", "--topic", "t"}, streams{null, newBuffer(), errs, brokerAt(w.url)}); code != exitOK {
		t.Errorf("exit code %d, %q", code, errs)
	}
	errs.await(t, "published 0 messages\n")
}

// Escape sequences of a body don't reach a terminal unless asked for.
func TestConsumeToTerminal(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("text", "\x1b[2J")
	keyboard, tty := openTerminal(t)
	s := streams{strings.NewReader(""), tty, newBuffer(), brokerAt(w.url)}
	shown := bufio.NewReader(keyboard)
	for _, c := range []struct{ args, want string }{
		{"", "(4 bytes that aren't text: --format raw prints them as they are, --format json in base64)\r\n"},
		{"--format raw", "\x1b[2J\r\n"},
	} {
		if code := run(t.Context(), append([]string{"consume", "--topic", "t"}, strings.Fields(c.args)...), s); code != exitOK {
			t.Fatalf("exit code %d", code)
		}
		for _, want := range []string{"text\r\n", c.want} {
			if got, err := shown.ReadString('\n'); got != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
	}
}

// A terminal is coloured unless it can't be or its user doesn't want it, also behind the lock that events need.
func TestColourOfTerminal(t *testing.T) {
	_, tty := openTerminal(t)
	for _, c := range []struct {
		name, value string
		want        bool
		origin      string
	}{
		{"", "", true, "a terminal"},
		{"NO_COLOR", "1", false, "NO_COLOR"},
		{"CLICOLOR", "0", false, "CLICOLOR"},
		{"TERM", "dumb", false, "TERM"},
	} {
		p := &program{streams: streams{getenv: func(k string) string {
			if k == c.name {
				return c.value
			}
			return ""
		}}, color: auto}
		if got, origin := p.colourFrom(&syncWriter{w: tty}); got != c.want || origin != c.origin {
			t.Errorf("%s=%s: %v by %s, want %v by %s", c.name, c.value, got, origin, c.want, c.origin)
		}
	}
}

// At a terminal a long publish shows how far it is, and leaves nothing behind but what it says at the end.
func TestProgressAtTerminal(t *testing.T) {
	w := newWorld(t)
	keyboard, tty := openTerminal(t)
	shown := newBuffer()
	go func() { _, _ = io.Copy(shown, keyboard) }() // ends with the terminal
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	feedIn(t, in, "one\ntwo\n")
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"publish", "--topic", "t", "--create"}, streams{r, newBuffer(), tty, brokerAt(w.url)})
	}()
	shown.await(t, "published 2  ")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d", c)
	}
	shown.await(t, eraseLine+"stagebus: published 2 messages\r\n")
}

// Ctrl-C at a terminal: what was printed is settled, and the command says so.
func TestControlC(t *testing.T) {
	keyboard, tty := openTerminal(t)
	shown := newBuffer()
	go func() { _, _ = io.Copy(shown, keyboard) }() // ends with the terminal
	c := command(t, 3, "consume", "--topic", "t", "--group", "default", "--follow")
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	shown.await(t, "message 2\r\n")
	feedIn(t, keyboard, "\x03")
	if err := c.Wait(); err != nil {
		t.Errorf("%v, want success", err)
	}
	shown.await(t, "stagebus: consumed 3 messages, stopped by a signal\r\nleft 0\r\n")
}
