package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

var cliUpdate = flag.Bool("update", false, "write testdata/cli")

// cliCase is a command line that fails on a real broker, and all that it says. In args and in stdin TOPIC stands for a topic that exists, NOSUCH
// for one that doesn't.
type cliCase struct {
	name    string
	address string // of the broker; empty: the test's
	args    string
	stdin   string
	code    int // 0 stands for 1
}

// What is different in each run and on each machine, or is a broker's own word for it, which differs from version to version.
var cliNoise = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+|localhost:\d+|\[::1\]:\d+`), "HOST"},
	{regexp.MustCompile(`HOST->HOST`), "HOST"},
	{regexp.MustCompile(`read tcp HOST: read: connection reset by peer|unexpected EOF|\bEOF\b`), "HANG-UP"}, // whichever comes first
	{regexp.MustCompile(`lookup no-such-host\.invalid[^;"\n]*`), "lookup no-such-host.invalid: …"},
	{regexp.MustCompile(`Exception \((\d+)\) Reason: "(?:[^"\\]|\\.)*"`), `Exception ($1) Reason: "…"`},
	{regexp.MustCompile(`^\d{4}-\d\d-\d\dT.*Z$`), "TIME"},
}

// cliGolden runs cases, as text and as JSON, and compares with testdata/cli/NAME.golden.
func cliGolden(t *testing.T, name string, b *broker.Broker, cases []cliCase) {
	t.Helper()
	topic, missing, address := cliName(t)+".t", cliName(t)+".none", b.URL()
	declare := []string{"topics", "declare", topic}
	if b.Kind() == broker.Kafka {
		declare = append(declare, "--partitions", "1") // whatever the broker's default
	}
	cliOK(t, address, "", declare...)
	t.Cleanup(func() { cliQuiet(address, "topics", "delete", "--yes", topic) })
	names := strings.NewReplacer("TOPIC", topic, "NOSUCH", missing)
	back := strings.NewReplacer(topic, "TOPIC", missing, "NOSUCH", cliWrongPassword, "PASSWORD")
	var got bytes.Buffer
	for _, c := range cases {
		fmt.Fprintf(&got, "# %s\n$ %s\n", c.name, c.args)
		for _, output := range []string{"text", "json"} {
			at := c.address
			if at == "" {
				at = address
			}
			args := append([]string{"--output", output}, strings.Fields(names.Replace(c.args))...)
			r := cli(t, at, names.Replace(c.stdin), args...)
			if want := max(c.code, 1); r.code != want || strings.Contains(r.out+r.err, cliWrongPassword) {
				t.Errorf("%s: exit code %d, want %d and no password: %+v", c.name, r.code, want, r)
			}
			cliCheckErrors(t, c.name, output, r)
			for _, s := range []struct{ stream, text string }{{"out", r.out}, {"err", r.err}} {
				for line := range strings.Lines(back.Replace(s.text)) {
					fmt.Fprintf(&got, "%s %s| %s\n", output, s.stream, cliNormal(t, strings.TrimSuffix(line, "\n")))
				}
			}
		}
		got.WriteByte('\n')
	}
	file := filepath.Join("testdata", "cli", name+".golden")
	if *cliUpdate {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, w := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		var left, right string
		if i < len(g) {
			left = g[i]
		}
		if i < len(w) {
			right = w[i]
		}
		if left != right {
			t.Errorf("%s:%d differs (-update writes it):\ngot  %s\nwant %s", file, i+1, left, right)
		}
	}
}

// cliNormal takes the noise out of a line, and of each text in it if it is JSON, whose fields are sorted then.
func cliNormal(t *testing.T, line string) string {
	t.Helper()
	var fields map[string]any
	if json.Unmarshal([]byte(line), &fields) != nil {
		for _, n := range cliNoise {
			line = n.from.ReplaceAllString(line, n.to)
		}
		return line
	}
	for k, v := range fields {
		if s, ok := v.(string); ok {
			fields[k] = cliNormal(t, s)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(fields); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// cliCheckErrors holds what is true of every failure: one line of it, which says what program speaks, or one object.
func cliCheckErrors(t *testing.T, name, output string, r cliResult) {
	t.Helper()
	errors := 0
	for line := range strings.Lines(r.err) {
		if output == "text" {
			if !strings.HasPrefix(line, "stagebus: ") {
				t.Errorf("%s: a line without the program's name: %s", name, line)
			}
			continue
		}
		var said struct {
			Error, Kind, Note string
			Code              int
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || (said.Error == "") == (said.Note == "") {
			t.Errorf("%s: %v: neither an error nor a note: %s", name, err, line)
		}
		if said.Error != "" {
			errors++
			if said.Code != r.code || said.Kind == "" || said.Kind == "failure" {
				t.Errorf("%s: exit code %d, and %+v", name, r.code, said)
			}
		}
	}
	if output == "json" && errors != 1 {
		t.Errorf("%s: %d errors: %s", name, errors, r.err)
	}
}

// cliQuiet runs the command for its effect, after a test.
func cliQuiet(address string, args ...string) {
	if file, err := cliBinary(); err == nil {
		_, _ = cliExec(file, address, args...).CombinedOutput()
	}
}

// cliAt is an address with something changed.
func cliAt(t *testing.T, raw string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func cliWrongUser(u *url.URL) {
	u.User = url.UserPassword(u.User.Username(), cliWrongPassword)
}

// silent listens and says nothing; nobody listens at closed.
func cliListeners(t *testing.T) (silent, closed string) {
	t.Helper()
	for _, at := range []*string{&silent, &closed} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*at = l.Addr().String()
		t.Cleanup(func() { _ = l.Close() })
		if at == &closed {
			_ = l.Close()
		}
	}
	return silent, closed
}

func TestCLIErrorsRabbitMQ(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	silent, closed := cliListeners(t)
	host := func(to string) string { return cliAt(t, b.URL(), func(u *url.URL) { u.Host = to }) }
	cliGolden(t, "rabbitmq", b, []cliCase{
		{name: "publish to a topic that doesn't exist", args: "publish --topic NOSUCH hello"},
		{name: "line 2 goes to a topic that doesn't exist", args: "publish --jsonl", stdin: `{"topic":"TOPIC","body":"1"}` + "\n" + `{"topic":"NOSUCH","body":"2"}` + "\n"},
		{name: "consume a topic that doesn't exist", args: "consume --topic NOSUCH"},
		{name: "consume a topic that doesn't exist, in a group", args: "consume --topic NOSUCH --group g"},
		{name: "consume a queue that doesn't exist", args: "consume --topic queue:NOSUCH"},
		{name: "describe a topic that doesn't exist", args: "topics describe NOSUCH"},
		{name: "delete a topic that doesn't exist", args: "topics delete --yes NOSUCH"},
		{name: "a bad line", args: "publish --jsonl", stdin: `{"topic":"TOPIC","body":"1"}` + "\n{oops\n"},
		{name: "a partition, which RabbitMQ doesn't have", args: "publish --topic TOPIC --partition 1 hello"},
		{name: "an offset, which RabbitMQ doesn't have", args: "consume --topic TOPIC --from 5"},
		{name: "a time, which RabbitMQ doesn't have", args: "consume --topic TOPIC --from 1h"},
		{name: "partitions, which RabbitMQ doesn't have", args: "topics declare NOSUCH --partitions 3"},
		{name: "fewer messages than asked for", args: "consume --topic TOPIC -n 100 --idle 3s", code: 3},
		{name: "the wrong password", address: cliAt(t, b.URL(), cliWrongUser), args: "consume --topic TOPIC"},
		{name: "a virtual host that doesn't exist", address: cliAt(t, b.URL(), func(u *url.URL) { u.Path = "/nosuch" }), args: "topics describe TOPIC"},
		{name: "no broker at that port", address: host(closed), args: "publish --topic TOPIC hello"},
		{name: "no host of that name", address: host("no-such-host.invalid"), args: "consume --topic TOPIC"},
		{name: "something that says nothing", address: host(silent), args: "topics describe TOPIC --connect-timeout 500ms"},
		{name: "TLS where there is none", address: cliAt(t, b.URL(), func(u *url.URL) { u.Scheme = "amqps" }), args: "topics describe TOPIC"},
		{name: "a Kafka client's URL", address: "kafka://" + b.Addr(), args: "topics describe TOPIC --connect-timeout 2s"},
		{name: "no management API", address: b.URL() + "?management=http://" + closed, args: "topics list"},
	})
}

func TestCLIErrorsRabbitMQTLS(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	secure, ok := b.TLSURL()
	if !ok {
		t.Skip("this RabbitMQ has no TLS port")
	}
	cliGolden(t, "rabbitmq-tls", b, []cliCase{
		{name: "an authority that isn't trusted", address: secure, args: "topics describe TOPIC"},
		{name: "no TLS where it is wanted", address: cliAt(t, secure, func(u *url.URL) { u.Scheme = "amqp" }), args: "topics describe TOPIC"},
	})
}

// A user who may do nothing learns which user may not do what.
func TestCLIErrorsRabbitMQPermission(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	api, ok := b.Management()
	if !ok {
		t.Skip("this RabbitMQ has no management API to make a user with")
	}
	user := fmt.Sprintf("cli-%d", time.Now().UnixNano())
	put := func(path, body string) {
		t.Helper()
		cliManage(t, http.MethodPut, api+path, body)
	}
	put("/api/users/"+user, `{"password":"`+cliWrongPassword+`","tags":""}`)
	t.Cleanup(func() { cliManage(t, http.MethodDelete, api+"/api/users/"+user, "") })
	put("/api/permissions/%2F/"+user, `{"configure":"^$","write":"^$","read":"^$"}`)
	address := cliAt(t, b.URL(), func(u *url.URL) { u.User = url.UserPassword(user, cliWrongPassword) })
	cliGolden(t, "rabbitmq-permission", b, []cliCase{
		{name: "publish", address: address, args: "publish --topic TOPIC hello"},
		{name: "consume", address: address, args: "consume --topic TOPIC --group g"},
		{name: "declare", address: address, args: "topics declare NOSUCH"},
		{name: "list", address: address + "?management=" + url.QueryEscape(strings.Replace(api, "guest:guest@", "", 1)), args: "topics list"},
	})
}

func cliManage(t *testing.T, method, address, body string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	request.SetBasicAuth(u.User.Username(), password)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing is read
	if response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, u.Path, response.Status)
	}
}

func TestCLIErrorsKafka(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	silent, closed := cliListeners(t)
	cliGolden(t, "kafka", b, []cliCase{
		{name: "publish to a topic that doesn't exist", args: "publish --topic NOSUCH hello"},
		{name: "line 2 goes to a topic that doesn't exist", args: "publish --jsonl", stdin: `{"topic":"TOPIC","body":"1"}` + "\n" + `{"topic":"NOSUCH","body":"2"}` + "\n"},
		{name: "consume a topic that doesn't exist", args: "consume --topic NOSUCH"},
		{name: "consume a topic that doesn't exist, in a group", args: "consume --topic NOSUCH --group g"},
		{name: "a queue, which Kafka doesn't have", args: "consume --topic queue:NOSUCH", code: 2},
		{name: "describe a topic that doesn't exist", args: "topics describe NOSUCH"},
		{name: "delete a topic that doesn't exist", args: "topics delete --yes NOSUCH"},
		{name: "declare it again with more partitions", args: "topics declare TOPIC --partitions 99"},
		{name: "a setting that Kafka doesn't know", args: "topics declare NOSUCH --config retention.mss=1", code: 2},
		{name: "a partition that the topic doesn't have", args: "publish --topic TOPIC --partition 99 hello"},
		{name: "a bad line", args: "publish --jsonl", stdin: `{"topic":"TOPIC","body":"1"}` + "\n{oops\n"},
		{name: "a message that is too large", args: "publish --topic TOPIC", stdin: strings.Repeat("x", 2<<20)},
		{name: "fewer messages than asked for", args: "consume --topic TOPIC -n 100 --idle 5s --template x", code: 3},
		{name: "no broker at that port", address: "kafka://" + closed, args: "publish --topic TOPIC hello"},
		{name: "no host of that name", address: "kafka://no-such-host.invalid:9092", args: "consume --topic TOPIC"},
		{name: "something that says nothing", address: "kafka://" + silent, args: "topics describe TOPIC --connect-timeout 500ms"},
		{name: "TLS where there is none", address: cliAt(t, b.URL(), func(u *url.URL) { u.Scheme = "kafkas" }), args: "topics describe TOPIC"},
		{name: "a login where none is wanted", address: cliAt(t, b.URL(), func(u *url.URL) { u.User = url.UserPassword("app", cliWrongPassword) }), args: "topics list"},
		{name: "a RabbitMQ client's URL", address: "amqp://" + b.Addr(), args: "topics describe TOPIC --connect-timeout 2s"},
	})
}

func TestCLIErrorsKafkaSecure(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	login, ok := b.SASLURL()
	secure, also := b.TLSURL()
	if !ok || !also {
		t.Skip("this Kafka has no port with a login or none with TLS")
	}
	cliGolden(t, "kafka-secure", b, []cliCase{
		{name: "the wrong password", address: cliAt(t, login, cliWrongUser), args: "consume --topic TOPIC"},
		{name: "no login where one is wanted", address: cliAt(t, login, func(u *url.URL) { u.User = nil }), args: "topics list --connect-timeout 2s"},
		{name: "an authority that isn't trusted", address: secure, args: "topics list"},
		{name: "no TLS where it is wanted", address: cliAt(t, secure, func(u *url.URL) { u.Scheme = "kafka" }), args: "topics list --connect-timeout 2s"},
	})
}
