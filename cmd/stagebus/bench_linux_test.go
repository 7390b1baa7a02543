package main

import (
	"io"
	"testing"
)

// At a terminal bench writes its progress over itself, and draws.
func TestBenchAtTerminal(t *testing.T) {
	w := newWorld(t)
	keyboard, tty := openTerminal(t)
	shown := newBuffer()
	go func() { _, _ = io.Copy(shown, keyboard) }() // ends with the terminal
	s := streams{tty, tty, tty, func(name string) string { return map[string]string{"STAGEBUS_BROKER": w.url}[name] }}
	if code := run(t.Context(), []string{"bench", "--rate", "1000", "--duration", "600ms", "--warmup", "0", "--size", "100"}, s); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{eraseLine + "1 of 1, 0 messages, 0s of 600ms: " + w.url, "00ms of 600ms", "messages/s", "┤"} {
		shown.await(t, want)
	}
}
