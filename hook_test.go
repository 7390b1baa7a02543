package stagebus

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestLogHookWritesEvents(t *testing.T) {
	var out bytes.Buffer
	h := LogHook(slog.NewTextHandler(&out, nil))
	h.Emit(Event{Kind: EventDisconnected, Broker: "amqp://h", Topic: "t", Group: "g", N: 3, Err: errors.New("reset")})
	for _, want := range []string{"level=WARN", `msg="stagebus: disconnected"`, "broker=amqp://h", "topic=t", "group=g", "n=3", "error=reset"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
	Hook(nil).Emit(Event{}) // a nil hook is no hook
}
