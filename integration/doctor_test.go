package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// doctorReport is what `stagebus doctor --output json` prints.
type doctorReport struct {
	OK      bool `json:"ok"`
	Brokers []struct {
		Broker, Status string
		Steps          []doctorStep
	} `json:"brokers"`
}

type doctorStep struct{ Name, Target, Status, Detail, Cause, Do string }

// doctor looks at one broker and returns its steps and the exit code.
func doctor(t *testing.T, address string, args ...string) ([]doctorStep, int) {
	t.Helper()
	r := cli(t, address, "", append([]string{"doctor", "--output", "json"}, args...)...)
	for _, secret := range []string{"hunter2", "stagebus-secret"} {
		if strings.Contains(r.out+r.err, secret) {
			t.Errorf("the password is shown: %+v", r)
		}
	}
	return doctorSteps(t, r.out), r.code
}

func doctorSteps(t *testing.T, out string) []doctorStep {
	t.Helper()
	var report doctorReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Brokers) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return report.Brokers[0].Steps
}

// doctorFinds wants one step to fail, with these parts of its cause and of what to do, and nothing after it to be reached.
func doctorFinds(t *testing.T, address, step, cause, do string, args ...string) {
	t.Helper()
	steps, code := doctor(t, address, args...)
	i := slices.IndexFunc(steps, func(s doctorStep) bool { return s.Status == "fail" })
	if code != 1 || i < 0 || steps[i].Name != step || !strings.Contains(steps[i].Cause, cause) || !strings.Contains(steps[i].Do, do) {
		t.Errorf("exit code %d, want step %q with %q and %q: %+v", code, step, cause, do, steps)
		return
	}
	for _, s := range steps[i+1:] {
		if s.Status != "skip" {
			t.Errorf("after %s: %+v", step, s)
		}
	}
}

// entrances are all of a broker's, with what a client needs for them.
func entrances(b *broker.Broker) map[string]string {
	all := map[string]string{"plain": b.URL()}
	certs, ok := b.Certs()
	if secure, have := b.TLSURL(); ok && have {
		all["TLS"] = secure + "?" + url.Values{"cacertfile": {certs.CA}, "certfile": {certs.Cert}, "keyfile": {certs.Key}}.Encode()
	}
	if login, have := b.SASLURL(); have {
		all["SASL"] = login
		all["SCRAM"] = login + "?auth_mechanism=scram-sha-512"
	}
	return all
}

// A healthy broker is found healthy at every entrance, and nothing is left behind there.
func TestDoctorGreen(t *testing.T) {
	want := map[broker.Kind][]string{
		broker.AMQP:  {"resolve", "tcp", "version", "login", "declare", "round trip", "clock"},
		broker.Kafka: {"resolve", "tcp", "version", "login", "listener", "declare", "round trip", "clock"},
	}
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		prefix := fmt.Sprintf("doctor.green.%d", time.Now().UnixNano())
		for name, address := range entrances(b) {
			t.Run(name, func(t *testing.T) {
				names := slices.Clone(want[b.Kind()])
				if name == "TLS" {
					names = slices.Insert(names, 2, "tls")
				}
				steps, code := doctor(t, address, "--prefix", prefix)
				var got []string
				for _, s := range steps {
					got = append(got, s.Name)
					if s.Status != "ok" {
						t.Errorf("%+v", s)
					}
				}
				if code != 0 || !slices.Equal(got, names) {
					t.Errorf("exit code %d, steps %q", code, got)
				}
			})
		}
		steps, code := doctor(t, b.URL(), "--read-only")
		if i := slices.IndexFunc(steps, func(s doctorStep) bool { return s.Name == "declare" }); code != 0 || steps[i].Status != "skip" {
			t.Errorf("read-only: %d, %+v", code, steps)
		}
		list := b.URL()
		if m, ok := b.Management(); ok {
			list += "?management=" + url.QueryEscape(m)
		} else if b.Kind() == broker.AMQP {
			return
		}
		if left := cliOK(t, list, "", "topics", "list"); strings.Contains(left, prefix) {
			t.Errorf("left behind: %s", left)
		}
	})
}

// What newcomers get wrong, on real brokers.
func TestDoctorNames(t *testing.T) {
	rabbit, kafka := broker.Require(t, broker.AMQP), broker.Require(t, broker.Kafka)
	with := func(address, user string) string { // another login
		_, host, _ := strings.Cut(address, "://")
		if i := strings.LastIndexByte(host, '@'); i >= 0 {
			host = host[i+1:]
		}
		scheme, _, _ := strings.Cut(address, "://")
		return scheme + "://" + user + host
	}
	type finding struct{ address, step, cause, do string }
	for name, c := range map[string]finding{
		"password":         {with(rabbit.URL(), "guest:hunter2@"), "login", "refuses the user guest: the name or the password is wrong", "rabbitmqctl change_password guest"},
		"vhost":            {with(rabbit.URL(), "guest:guest@") + "nowhere", "login", `refuses the vhost "nowhere"`, "rabbitmqctl add_vhost nowhere"},
		"kafka for rabbit": {"kafka://" + rabbit.Addr(), "version", "RabbitMQ (AMQP) listens on " + rabbit.Addr(), "write amqp://" + rabbit.Addr()},
		"rabbit for kafka": {"amqp://" + kafka.Addr(), "version", "Kafka listens on " + kafka.Addr(), "write kafka://" + kafka.Addr()},
		"TLS for plain":    {"kafkas://" + kafka.Addr(), "tls", "speaks Kafka without TLS", "write kafka://" + kafka.Addr()},
		"AMQPS for plain":  {"amqps://" + rabbit.Addr(), "tls", "speaks AMQP without TLS", "write amqp://" + rabbit.Addr()},
		"login unasked":    {with(kafka.URL(), "me:hunter2@"), "login", "takes no login", "leave USER:PASSWORD@ out"},
	} {
		t.Run(name, func(t *testing.T) { doctorFinds(t, c.address, c.step, c.cause, c.do) })
	}
	t.Run("management", func(t *testing.T) {
		m, ok := rabbit.Management()
		if !ok {
			t.Skip("needs the management API")
		}
		u, err := url.Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		doctorFinds(t, "amqp://"+u.Host, "version", "a web server (HTTP) listens on "+u.Host, "correct the port")
	})
	t.Run("SASL", func(t *testing.T) {
		login, ok := kafka.SASLURL()
		if !ok {
			t.Skip("needs STAGEBUS_TEST_KAFKA_SASL_URL")
		}
		doctorFinds(t, with(login, ""), "login", "wants a login (SASL PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512), and the URL has none", "write kafka://USER:PASSWORD@")
		doctorFinds(t, with(login, "stagebus:hunter2@"), "login", "refuses the user stagebus", "correct USER:PASSWORD@ in the URL")
		doctorFinds(t, with(login, "stagebus:hunter2@")+"?auth_mechanism=scram-sha-256", "login", "refuses the user stagebus", "--entity-name stagebus")
		doctorFinds(t, strings.Replace(with(login, ""), "kafka:", "kafkas:", 1), "tls", "speaks Kafka without TLS", "write kafka://")
	})
	for name, b := range map[string]*broker.Broker{"AMQPS": rabbit, "KAFKAS": kafka} {
		t.Run(name, func(t *testing.T) {
			secure, ok := b.TLSURL()
			certs, have := b.Certs()
			if !ok || !have {
				t.Skip("needs a TLS port and STAGEBUS_TEST_CERTS")
			}
			host := with(secure, "")
			ca := "?cacertfile=" + url.QueryEscape(certs.CA)
			doctorFinds(t, host, "tls", "signed by CN=stagebus test CA, which this machine doesn't trust", "add ?cacertfile=FILE")
			doctorFinds(t, host+ca+"&server_name_indication=another.example", "tls", "the certificate is for localhost, 127.0.0.1 and ::1, not for another.example", "server_name_indication=localhost")
			doctorFinds(t, strings.Replace(host, "s://", "://", 1), "version", "speaks TLS, and ", "s://")
			if b == kafka {
				doctorFinds(t, host+ca, "login", "wants a client certificate, and the URL names none", "add ?certfile=FILE&keyfile=FILE")
			}
		})
	}
}

// A user who may log in and nothing else.
func TestDoctorRights(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	base, ok := b.Management()
	if !ok {
		t.Skip("needs the management API")
	}
	user := fmt.Sprintf("doctor-%d", time.Now().UnixNano())
	manage := func(method, path, body string) {
		t.Helper()
		q, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Close = true
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, r.Status)
		}
	}
	manage(http.MethodPut, "/api/users/"+user, `{"password": "hunter2", "tags": ""}`)
	defer manage(http.MethodDelete, "/api/users/"+user, "")
	manage(http.MethodPut, "/api/permissions/%2F/"+user, `{"configure": "^$", "write": "^$", "read": "^$"}`)
	_, host, _ := strings.Cut(b.URL(), "@")
	address := "amqp://" + user + ":hunter2@" + host
	doctorFinds(t, address, "declare", "the user "+user+" may not make the topic", "rabbitmqctl set_permissions -p / "+user)
	manage(http.MethodPut, "/api/permissions/%2F/"+user, `{"configure": ".*", "write": ".*", "read": "^$"}`)
	if steps, code := doctor(t, address); code != 1 || !slices.ContainsFunc(steps, func(s doctorStep) bool {
		return s.Status == "fail" && strings.Contains(s.Cause, "may not") && strings.Contains(s.Do, "rabbitmqctl set_permissions")
	}) {
		t.Errorf("exit code %d: %+v", code, steps)
	}
}

// Kafka from its start to its end, and with an address for its clients that leads nowhere.
func TestDoctorKafkaOutage(t *testing.T) {
	b := broker.Private(t, broker.Kafka)
	ctx := t.Context()
	if steps, code := doctor(t, b.URL()); code != 0 {
		t.Fatalf("%+v", steps)
	}
	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	doctorFinds(t, b.URL(), "tcp", "nothing listens on "+b.Addr(), "start it (docker compose up -d --wait, or stagebus dev)")

	wait := startDoctor(t, b.URL(), "--wait", "120s")
	wait.errs.await(t, "waiting for "+b.URL()+": nothing listens on "+b.Addr())
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := wait.end(t); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}

	if b.Way() != broker.Native {
		t.Skip("only the script starts a broker with another configuration")
	}
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nowhere.Close()
	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(nowhere.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STAGEBUS_BROKERS_EXTRA", "advertised.listeners=PLAIN://localhost:"+port)
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	doctorFinds(t, b.URL(), "listener", "broker 1 sends clients to localhost:"+port+", and nothing listens on ",
		"set advertised.listeners=PLAINTEXT://"+b.Addr()+" (Docker: KAFKA_ADVERTISED_LISTENERS;")
}

// RabbitMQ that has run out of memory takes no messages, and doctor says so.
func TestDoctorAlarm(t *testing.T) {
	t.Setenv("STAGEBUS_BROKERS_EXTRA", "vm_memory_high_watermark.absolute = 1MB")
	b := broker.Private(t, broker.AMQP)
	if b.Way() != broker.Native {
		t.Skip("only the script starts a broker with another configuration")
	}
	doctorFinds(t, b.URL(), "round trip", "the broker takes no messages for now (low on memory)", "vm_memory_high_watermark", "--timeout", "1s")
}

// waiting is a doctor that runs.
type waiting struct {
	c    *exec.Cmd
	out  bytes.Buffer
	errs *watched
}

func startDoctor(t *testing.T, address string, args ...string) *waiting {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{errs: newWatched()}
	w.c = exec.CommandContext(t.Context(), file, append([]string{"doctor"}, args...)...)
	w.c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
	w.c.Stdout, w.c.Stderr = &w.out, w.errs
	if err := w.c.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *waiting) end(t *testing.T) (code int, out, errs string) {
	t.Helper()
	_ = w.c.Wait() // the exit code says it
	return w.c.ProcessState.ExitCode(), w.out.String(), w.errs.String()
}
