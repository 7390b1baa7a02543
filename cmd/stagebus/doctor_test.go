package main

import (
	"context"
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/doctor"
	"github.com/twmb/franz-go/pkg/kfake"
)

// fakeCluster is a Kafka in the process; it returns its URL.
func fakeCluster(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return "kafka://" + c.ListenAddrs()[0]
}

// nobody is an address of this machine where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

var (
	doctorTimes = regexp.MustCompile(` +\d+(\.\d)? m?s\b`)
	doctorNames = regexp.MustCompile(`doctor\.[0-9a-f]{8}`)
	doctorKinds = regexp.MustCompile(`\d+ kinds of requests, Fetch up to version \d+`)
	doctorPorts = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

func doctorText(s string) string {
	s = doctorKinds.ReplaceAllString(s, "N kinds of requests, Fetch up to version N")
	s = doctorPorts.ReplaceAllString(doctorTimes.ReplaceAllString(s, " TIME"), "HOST:PORT")
	return doctorNames.ReplaceAllString(s, "doctor.RANDOM")
}

const healthyMemory = `memory://
  ok   declare TIME  made stagebus.doctor.RANDOM
  ok   round trip TIME  10 messages, one after the other: half within TIME, all within TIME
`

const healthyKafka = `kafka://HOST:PORT
  ✓ resolve TIME  127.0.0.1 is an address
  ✓ tcp TIME  HOST:PORT answers
  ✓ version TIME  speaks Kafka's protocol: N kinds of requests, Fetch up to version N
  ✓ login TIME  none is asked for
  ✓ listener TIME  HOST:PORT: broker 0, as typed
  ✓ declare TIME  made stagebus.doctor.RANDOM
  ✓ round trip TIME  10 messages, one after the other: half within TIME, all within TIME
  ✓ clock TIME  the broker's clock and this machine's agree, give or take TIME
`

const nothingListens = `kafka://HOST:PORT
  FAIL tcp TIME  HOST:PORT
      cause: nothing listens on HOST:PORT
      do:    start it (docker compose up -d --wait, or stagebus dev), or correct the port in the URL (usually 9092, with TLS 9093)
  skip version, login, listener, declare, round trip, clock: not reached
`

func TestDoctor(t *testing.T) {
	kafka, gone := fakeCluster(t), "kafka://me:hunter2@"+nobody(t)
	utf8 := map[string]string{"LANG": "C.UTF-8"}
	for name, c := range map[string]struct {
		args string
		env  map[string]string
		code int
		out  string
		err  string
	}{
		"memory":      {"doctor", map[string]string{"STAGEBUS_BROKER": "memory://"}, exitOK, healthyMemory, ""},
		"kafka":       {"doctor " + kafka, utf8, exitOK, healthyKafka, ""},
		"ASCII":       {"doctor memory://", map[string]string{"LC_ALL": "C", "LANG": "C.UTF-8"}, exitOK, healthyMemory, ""},
		"two":         {"doctor memory:// --broker memory://", nil, exitOK, healthyMemory + healthyMemory, ""},
		"nobody":      {"doctor " + gone, nil, exitFailure, strings.Replace(nothingListens, "  FAIL", "  ok   resolve TIME  127.0.0.1 is an address\n  FAIL", 1), "failed: tcp at kafka://127.0.0.1:"},
		"one of them": {"doctor --broker memory:// --broker " + gone, nil, exitFailure, healthyMemory + strings.Replace(nothingListens, "  FAIL", "  ok   resolve TIME  127.0.0.1 is an address\n  FAIL", 1), "failed: tcp at kafka"},
		"prefix":      {"doctor --prefix my.own memory://", nil, exitOK, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := runWith(t.Context(), "", c.env, strings.Fields(c.args)...)
			if name == "prefix" {
				if r.code != exitOK || !strings.Contains(r.out, "made my.own.") {
					t.Errorf("%+v", r)
				}
				return
			}
			r.out = doctorText(r.out)
			r.want(t, c.code, c.out, c.err)
			if strings.Contains(r.out+r.err, "hunter2") {
				t.Errorf("the password is shown: %+v", r)
			}
		})
	}
}

func TestDoctorUsage(t *testing.T) {
	for args, want := range map[string]string{
		"doctor":                                   "no broker",
		"doctor amqp://u:se/cret@h/":               "it is SCHEME://",
		"doctor localhost:9092":                    "it begins with amqp://",
		"doctor --wait -1s memory://":              "--wait and --timeout",
		"doctor --timeout 0s memory://":            "--wait and --timeout",
		"doctor --messages 0 memory://":            "--messages counts from 1",
		"doctor --prefix a..b memory://":           `--prefix "a..b"`,
		"doctor --prefix queue:x memory://":        `--prefix "queue:x"`,
		"doctor --context x memory://":             "both a URL and --context",
		"doctor kafkas://h?cacertfile=/none/there": "cacertfile",
	} {
		t.Run(args, func(t *testing.T) {
			r := runWith(t.Context(), "", nil, strings.Fields(args)...)
			r.want(t, exitUsage, "", want)
			if strings.Contains(r.err, "cret") {
				t.Errorf("the password is shown: %s", r.err)
			}
		})
	}
}

func TestDoctorJSON(t *testing.T) {
	gone := "kafka://me:hunter2@" + nobody(t)
	r := runWith(t.Context(), "", nil, "doctor", "--output", "json", "memory://", gone)
	var got struct {
		OK      bool
		Brokers []doctor.Record
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	if r.code != exitFailure || got.OK || len(got.Brokers) != 2 || got.Brokers[0].Status != doctor.OK || got.Brokers[1].Status != doctor.Fail ||
		strings.Contains(r.out+r.err, "hunter2") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	tcp := got.Brokers[1].Steps[1]
	if tcp.Name != "tcp" || tcp.Status != doctor.Fail || !strings.HasPrefix(tcp.Cause, "nothing listens on 127.0.0.1:") || tcp.Do == "" {
		t.Errorf("%+v", tcp)
	}
}

// A broker that comes up while doctor waits for it.
func TestDoctorWait(t *testing.T) {
	at := nobody(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: out, err: errs, getenv: func(string) string { return "" }}
		code <- run(t.Context(), []string{"doctor", "--wait", "60s", "kafka://" + at}, s)
	}()
	errs.await(t, "waiting for kafka://"+at+": nothing listens on "+at)
	if out.String() != "" {
		t.Errorf("told before it is over: %s", out)
	}
	fakeCluster(t, kfake.Ports(number))
	if c := <-code; c != exitOK || !strings.Contains(out.String(), "ok   round trip") || strings.Contains(out.String(), "FAIL") {
		t.Errorf("code %d: %s%s", c, out, errs)
	}
}

func TestDoctorWaitsInVain(t *testing.T) {
	r := runWith(t.Context(), "", nil, "doctor", "--wait", "300ms", "kafka://"+nobody(t))
	if r.code != exitFailure || !strings.Contains(r.out, "cause: nothing listens") || !strings.Contains(r.err, "waiting for") || !strings.Contains(r.err, "failed: tcp") {
		t.Errorf("%+v", r)
	}
	quiet := runWith(t.Context(), "", nil, "doctor", "--wait", "300ms", "-q", "kafka://"+nobody(t))
	if quiet.code != exitFailure || strings.Count(quiet.err, "\n") != 1 {
		t.Errorf("%+v", quiet)
	}
}

func TestDoctorInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errInterrupted) })
	runWith(ctx, "", nil, "doctor", "--wait", "1h", "-q", "kafka://"+nobody(t)).want(t, exitFailure, "", "stopped by a signal")
}
