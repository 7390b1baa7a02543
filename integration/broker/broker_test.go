package broker

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestAddress(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"amqp://guest:guest@127.0.0.1:5672/":      "127.0.0.1:5672",
		"amqp://u:p%40ss@h:1/v%2F?heartbeat=10":   "h:1",
		"kafka://h1:9092,h2:9092?compression=lz4": "h1:9092",
		"kafkas://[::1]:9093":                     "[::1]:9093",
	} {
		if got, err := address(raw); err != nil || got != want {
			t.Errorf("address(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "127.0.0.1:5672", "kafka://host", "amqp://user:secret@host/"} {
		got, err := address(raw)
		if err == nil {
			t.Errorf("address(%q) = %q, want an error", raw, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("address(%q): the error has the password in it: %v", raw, err)
		}
	}
}

func TestOptionalEntrances(t *testing.T) {
	t.Parallel()
	bare := &Broker{kind: AMQP, way: Docker, vars: map[string]string{varAMQP: "amqp://guest:guest@127.0.0.1:5672/"}}
	for name, f := range map[string]func() (string, bool){"TLSURL": bare.TLSURL, "SASLURL": bare.SASLURL, "Management": bare.Management, "Metrics": bare.Metrics} {
		if got, ok := f(); ok || got != "" {
			t.Errorf("%s = %q, %v, want none", name, got, ok)
		}
	}
	if got, ok := bare.Certs(); ok {
		t.Errorf("Certs = %v, want none", got)
	}
	if s := bare.String(); strings.Contains(s, "guest") || !strings.Contains(s, "127.0.0.1:5672") {
		t.Errorf("String = %q, want the address and no password", s)
	}
	full := &Broker{kind: Kafka, way: Native, vars: map[string]string{varKafka: "kafka://h:1", varKafkaTLS: "kafkas://h:2", varCerts: "/c"}}
	if u, ok := full.TLSURL(); !ok || u != "kafkas://h:2" {
		t.Errorf("TLSURL = %q, %v", u, ok)
	}
	if c, ok := full.Certs(); !ok || c.Key != "/c/client-key.pem" {
		t.Errorf("Certs = %v, %v", c, ok)
	}
	want := []string{varKafka + "=kafka://h:1", varKafkaTLS + "=kafkas://h:2", varCerts + "=/c"}
	if got := full.environ(); !slices.Equal(got, want) {
		t.Errorf("environ = %q, want %q", got, want)
	}
}

// A variable that names nothing, or something else, must fail tests: skipped for it they would look green.
func TestEnvironmentThatDoesNotAnswer(t *testing.T) {
	free := "127.0.0.1:" + freePort()
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Close() })
	go func() {
		for {
			c, err := stranger.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	for raw, want := range map[string]string{
		"amqp://guest:guest@" + free + "/":                     "refused",
		"amqp://guest:guest@" + stranger.Addr().String() + "/": "",
		"amqp://nowhere": "no port",
	} {
		t.Setenv(varAMQP, raw)
		b, err := fromEnvironment(t.Context(), AMQP)
		if b != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), varAMQP) {
			t.Errorf("%s=%s: %v, %v, want an error with %q and the variable", varAMQP, raw, b, err, want)
		}
	}
	t.Setenv(varAMQP, "")
	if b, err := fromEnvironment(t.Context(), AMQP); b != nil || err != nil {
		t.Errorf("no variable: %v, %v, want neither", b, err)
	}
}

func TestNoWay(t *testing.T) {
	t.Setenv("STAGEBUS_TEST_BROKERS", "pigeon")
	if _, err := start(t.Context(), AMQP); err == nil || errors.Is(err, errNone) {
		t.Errorf("a way that does not exist: %v, want an error that fails the test", err)
	}
}

func TestRequireIsShared(t *testing.T) {
	t.Parallel()
	for _, k := range []Kind{AMQP, Kafka} {
		a, b := Require(t, k), Require(t, k)
		if a != b {
			t.Errorf("two brokers: %v and %v", a, b)
		}
		if err := ask(t.Context(), k, a.Addr()); err != nil {
			t.Error(err)
		}
		t.Log(a)
	}
}

// Every fault, in every way that this machine has, and at the end the same broker at the same address.
func TestPrivateFaults(t *testing.T) {
	ws, err := ways()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		for _, k := range []Kind{AMQP, Kafka} {
			t.Run(string(w)+"/"+string(k), func(t *testing.T) {
				t.Setenv("STAGEBUS_TEST_BROKERS", string(w))
				faults(t, k)
			})
		}
	}
}

func faults(t *testing.T, k Kind) {
	i := Private(t, k)
	addr := i.Addr()
	step := func(name string, f func(context.Context) error, check func() error) {
		t.Helper()
		began := time.Now()
		if err := f(t.Context()); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if err := check(); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
		t.Logf("%s took %v", name, took.Round(10*time.Millisecond))
	}
	serves := func() error { return ask(t.Context(), k, addr) }
	refuses := func() error {
		if err := ask(t.Context(), k, addr); !errors.Is(err, syscall.ECONNREFUSED) {
			return errors.Join(errors.New("the port does not refuse connections"), err)
		}
		return nil
	}
	silent := func() error {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err // the kernel, or Docker's proxy, accepts for the frozen broker
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write(hello[k].request)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.Join(errors.New("the frozen broker answered"), err)
		}
		return nil
	}
	if err := serves(); err != nil {
		t.Fatal(err)
	}
	step("stop", i.Stop, refuses)
	step("start", i.Start, serves)
	step("kill", i.Kill, refuses)
	step("start after kill", i.Start, serves)
	step("pause", i.Pause, silent)
	step("resume", i.Resume, serves)
	step("pause", i.Pause, silent)
	step("stop while paused", i.Stop, refuses)
	step("start", i.Start, serves)
	if i.Addr() != addr {
		t.Errorf("the address was %s and is %s", addr, i.Addr())
	}
}
