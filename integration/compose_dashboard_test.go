package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

// The dashboard's queries, against a real Prometheus that scraped a real run, by the stack's own prometheus.yml.

const (
	dashboardFile  = "../compose/grafana/dashboards/stagebus.json"
	prometheusFile = "../compose/prometheus.yml"
)

// dashboardQuery is one line or family of lines of a panel.
type dashboardQuery struct{ panel, legend, expr string }

func (q dashboardQuery) String() string { return fmt.Sprintf("%s, %s: %s", q.panel, q.legend, q.expr) }

// still says that nothing may happen there in an ordinary run: a zero is an answer too.
func (q dashboardQuery) still() bool {
	return strings.HasPrefix(q.panel, "Trouble") || q.legend == "redelivered" || strings.Contains(q.panel, "not yet settled")
}

// dashboardQueries reads the dashboard and checks that it fits the provisioned data source.
func dashboardQueries(t *testing.T) []dashboardQuery {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string
		Panels []struct {
			ID         int
			Type       string
			Title      string
			Datasource struct{ UID string }
			GridPos    struct{ X, Y, W, H int }
			Targets    []struct{ RefID, Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../compose/grafana/datasources/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	if d.UID != "stagebus" || len(d.Panels) == 0 || len(d.Panels) > 10 {
		t.Errorf("dashboard %q has %d panels", d.UID, len(d.Panels))
	}
	var out []dashboardQuery
	seen := map[any]bool{}
	for _, p := range d.Panels {
		if p.Type == "" || p.Title == "" || seen[p.ID] || seen[p.GridPos] || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, at %+v has no type or no query, or is there twice", p.ID, p.Title, p.GridPos)
		}
		seen[p.ID], seen[p.GridPos] = true, true
		if !bytes.Contains(source, []byte("uid: "+p.Datasource.UID+" ")) {
			t.Errorf("panel %q: data source %q isn't the provisioned one", p.Title, p.Datasource.UID)
		}
		for _, q := range p.Targets {
			out = append(out, dashboardQuery{p.Title, q.LegendFormat, q.Expr})
		}
	}
	return out
}

func TestComposeDashboard(t *testing.T) {
	queries := dashboardQueries(t)
	b := broker.Require(t, broker.AMQP)
	metrics, ok := b.Metrics()
	if !ok {
		t.Skip("needs RabbitMQ's Prometheus plugin: STAGEBUS_TEST_AMQP_METRICS")
	}
	program, err := prometheusProgram()
	if errors.Is(err, errNoPrometheus) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}

	consumer, producer := "127.0.0.1:"+composePort(t), "127.0.0.1:"+composePort(t)
	run := startMetered(t, b, consumer, producer)
	rabbit := strings.TrimPrefix(metrics, "http://")
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, prometheusConfig(t, []string{consumer, producer}, rabbit), 0o600); err != nil {
		t.Fatal(err)
	}
	base := "http://127.0.0.1:" + composePort(t)
	server := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+strings.TrimPrefix(base, "http://"), "--log.level=warn")
	composeBackground(t, server)
	run.until(t, func() error {
		open, err := dashboardAsk(t.Context(), base, "4s", queries)
		queries = open
		return err
	})
}

// prometheusConfig is the stack's own configuration with other addresses, and scraped more often.
func prometheusConfig(t *testing.T, stagebus []string, rabbit string) []byte {
	t.Helper()
	raw, err := os.ReadFile(prometheusFile)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	services := composeLoad(t, all).Services
	for _, m := range regexp.MustCompile(`([a-z.-]+):(\d+)`).FindAllStringSubmatch(text[strings.Index(text, "scrape_configs"):], -1) {
		if _, ok := services[m[1]]; !ok && m[1] != "host.docker.internal" && m[0] != "localhost:9090" {
			t.Errorf("%s is no service of the stack", m[0])
		}
	}
	for _, change := range [][2]string{
		{"scrape_interval: 5s", "scrape_interval: 1s"},
		{"scrape_timeout: 4s", "scrape_timeout: 1s"},
		{"[demo-rabbitmq:9464, demo-kafka:9464, host.docker.internal:9464]", "[" + strings.Join(stagebus, ", ") + "]"},
		{"[rabbitmq:15692, rabbitmq-classic:15692]", "[" + rabbit + "]"},
		{"[rabbitmq:15692]", "[" + rabbit + "]"},
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("%s hasn't %q once", prometheusFile, change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return []byte(text)
}

// dashboardAsk asks a Prometheus queries and returns those that have no answer yet, and what is wrong with them.
func dashboardAsk(ctx context.Context, base, interval string, queries []dashboardQuery) (open []dashboardQuery, err error) {
	var errs []error
	for _, q := range queries {
		values, err := prometheusAsk(ctx, base, strings.ReplaceAll(q.expr, "$__rate_interval", interval))
		switch {
		case err != nil:
		case len(values) == 0:
			err = errors.New("no data")
		case !q.still() && !slices.ContainsFunc(values, func(v float64) bool { return v > 0 }):
			err = fmt.Errorf("%v", values)
		}
		if err != nil {
			open, errs = append(open, q), append(errs, fmt.Errorf("%v: %w", q, err))
		}
	}
	return open, errors.Join(errs...)
}

// prometheusAsk returns the values of a query now.
func prometheusAsk(ctx context.Context, base, expr string) ([]float64, error) {
	var answer struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := composeJSON(ctx, base+"/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, errors.New(answer.Error)
	}
	var out []float64
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func composeJSON(ctx context.Context, address string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%s: %s: %.200s", address, resp.Status, body)
	}
	return nil
}

// metered is a producer and a consumer that serve metrics while messages go through.
type metered struct {
	lines    io.Writer
	commands []*composeCommand
}

// startMetered begins a run over b. A second group that nobody reads makes sure that a queue has depth.
func startMetered(t *testing.T, b *broker.Broker, consumer, producer string) metered {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	topic := cliName(t)
	cliOK(t, b.URL(), "", "topics", "declare", topic, "--group", "read", "--group", "left")
	cliDeleteLater(t, b, topic)
	command := func(args ...string) *exec.Cmd {
		c := exec.Command(file, args...)
		c.Env = append(os.Environ(), "STAGEBUS_BROKER="+b.URL())
		return c
	}
	c := composeBackground(t, command("consume", "--topic", topic, "--group", "read", "--follow", "--metrics", consumer))
	publish := command("publish", "--topic", topic, "--stamp", "--metrics", producer)
	lines, err := publish.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return metered{lines, []*composeCommand{c, composeBackground(t, publish)}}
}

// until keeps messages coming until f has nothing to complain of.
func (m metered) until(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(m.lines, "message %d\n", i); err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 {
			err := f()
			if err == nil {
				return
			}
			for _, c := range m.commands {
				if text, ended := c.ended(); ended {
					t.Fatalf("%v ended: %s\n%v", c.args, text, err)
				}
			}
			select {
			case <-deadline:
				t.Fatal(err)
			default:
			}
		}
		<-tick.C
	}
}

// composeCommand is a command in the background.
type composeCommand struct {
	args []string
	done chan struct{}
	out  bytes.Buffer // once done
}

// composeBackground starts a command and ends it with the test.
func composeBackground(t *testing.T, c *exec.Cmd) *composeCommand {
	t.Helper()
	b := &composeCommand{args: c.Args, done: make(chan struct{})}
	c.Stdout, c.Stderr = io.Discard, &b.out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait() // it is killed at the end
		close(b.done)
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		select {
		case <-b.done:
		case <-time.After(20 * time.Second):
			_ = c.Process.Kill()
			<-b.done
			t.Errorf("%v had to be killed: %s", c.Args, &b.out)
		}
	})
	return b
}

func (b *composeCommand) ended() (string, bool) {
	select {
	case <-b.done:
		return b.out.String(), true
	default:
		return "", false
	}
}

// composePort returns a port that is free now.
func composePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

var errNoPrometheus = errors.New("no Prometheus: put it into PATH, or use Debian, from whose package it is taken")

// prometheusProgram finds a Prometheus, or takes the program out of Debian's package: installed, it would run as a service.
var prometheusProgram = sync.OnceValues(func() (string, error) {
	if file, err := exec.LookPath("prometheus"); err == nil {
		return file, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "stagebus-test")
	file := filepath.Join(cache, "prometheus", "usr", "bin", "prometheus")
	if exec.Command(file, "--version").Run() == nil {
		return file, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", errNoPrometheus
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(cache, "prometheus-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // a directory of ours
	download := func() ([]byte, error) {
		c := exec.Command("apt-get", "download", "-qq", "prometheus")
		c.Dir = fresh
		return c.CombinedOutput()
	}
	out, err := download()
	if err != nil && os.Getuid() == 0 { // the lists may be old, or none
		if out, err = exec.Command("apt-get", "update", "-qq").CombinedOutput(); err == nil {
			out, err = download()
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: apt-get: %w: %s", errNoPrometheus, err, out)
	}
	packages, err := filepath.Glob(filepath.Join(fresh, "*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get downloaded %v: %w", packages, err)
	}
	if out, err := exec.Command("dpkg", "-x", packages[0], filepath.Join(fresh, "x")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg: %w: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(cache, "prometheus")); err != nil {
		return "", err
	}
	return file, os.Rename(filepath.Join(fresh, "x"), filepath.Join(cache, "prometheus"))
})
