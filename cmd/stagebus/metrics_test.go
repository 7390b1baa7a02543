package main

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.seedBodies("one", "two")
	out, errs, stop := w.background(nil, "consume", "--topic", "t", "--group", "g", "--follow", "--metrics", "localhost:0")
	out.await(t, "two")
	at := regexp.MustCompile(`metrics at (http://\S+)`).FindStringSubmatch(errs.String())
	if at == nil {
		t.Fatalf("no address in %q", errs)
	}
	page := get(t, at[1])
	for _, line := range []string{`stagebus_received_messages_total{topic="t"} 2`, "go_goroutines"} {
		if !strings.Contains(page, line) {
			t.Errorf("no %q in\n%s", line, page)
		}
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, err := http.Get(at[1]); err == nil {
		t.Error("served after the end")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // it was only read
	page, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func TestMetricsAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a listener
	w := newWorld(t)
	w.seed(stagebus.Message{Topic: "t"})
	r := w.run("", "consume", "--topic", "t", "--metrics", l.Addr().String())
	r.want(t, exitFailure, "", "choose another address")
}
