package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The stack, brought up for real: on ports of its own, by its variables, so that one that already runs isn't in the way.

// stack is a stack that runs.
type stack struct {
	name string
	env  []string
	port map[string]string // by variable
}

// composeUp brings services up, all of a profile if none are named, and takes them down with the test. It skips the test where there
// is no Docker with compose, or not their images: pulling is up to whoever wants the test.
func composeUp(t *testing.T, profile string, services ...string) stack {
	t.Helper()
	if testing.Short() {
		t.Skip("brings containers up: not with -short")
	}
	if os.Getenv("STAGEBUS_TEST_BROKERS") == "native" {
		t.Skip("STAGEBUS_TEST_BROKERS=native: no containers")
	}
	if h := os.Getenv("DOCKER_HOST"); h != "" && !strings.HasPrefix(h, "unix://") {
		t.Skipf("the engine at %s publishes ports on another machine", h)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("no docker compose: %v: %.100s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %v: %.100s", err, out)
	}
	profiles := []string{}
	if profile != "" {
		profiles = append(profiles, profile)
	}
	s := stack{name: fmt.Sprintf("stagebus-test-%d", time.Now().UnixNano()), port: map[string]string{}}
	var ports []string
	for name := range composeDefaults(t) {
		if strings.HasSuffix(name, "_PORT") {
			s.port[name] = composePort(t)
			for slices.Contains(ports, s.port[name]) {
				s.port[name] = composePort(t)
			}
			ports = append(ports, s.port[name])
			s.env = append(s.env, name+"="+s.port[name])
		}
	}
	p := composeLoad(t, profiles)
	if len(services) > 0 {
		whole := composeLoad(t, all)
		var err error
		if p, err = whole.WithSelectedServices(services); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"up", "--detach", "--wait", "--pull", "never"}
	for _, service := range p.Services {
		image := service.Image
		if service.Build != nil {
			image = composeGoImage(t)
			args = append(args, "--build")
		}
		if !composeImage(t, image) {
			t.Skipf("no image %s for %s: docker pull %s", image, service.Name, image)
		}
	}

	t.Cleanup(func() { s.down(t) })
	if profile != "" {
		args = append([]string{"--profile", profile}, args...)
	}
	start := time.Now()
	if out, err := s.compose(t.Context(), append(args, services...)...); err != nil {
		logs, _ := s.compose(context.WithoutCancel(t.Context()), "--profile", "*", "logs", "--tail", "20")
		t.Fatalf("up: %v\n%s\n%s", err, out, logs)
	}
	t.Logf("up in %v", time.Since(start).Round(time.Second/10))
	return s
}

func composeImage(t *testing.T, name string) bool {
	t.Helper()
	return exec.CommandContext(t.Context(), "docker", "image", "inspect", name).Run() == nil
}

// composeGoImage returns the image that the command's own is built with.
func composeGoImage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ARG GO_IMAGE=(\S+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the Dockerfile has no ARG GO_IMAGE")
	}
	return string(m[1])
}

func (s stack) compose(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "docker", append([]string{"compose", "-p", s.name, "-f", composeFile}, args...)...)
	c.Env = append(os.Environ(), s.env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("docker compose %v: %w: %s", args, err, &errs)
	}
	return out.String(), err
}

// down is the documented one, and checks that nothing is left.
func (s stack) down(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	volumes := s.volumes(t, ctx)
	start := time.Now()
	if _, err := s.compose(ctx, "--profile", "*", "down"); err != nil {
		t.Error(err)
	}
	t.Logf("down in %v", time.Since(start).Round(time.Second/10))
	for _, kind := range [][]string{{"ps", "-a"}, {"network", "ls"}, {"volume", "ls"}} {
		args := append(kind, "-q", "--filter", "label=com.docker.compose.project="+s.name)
		if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("docker %v: %v: `down` left %s", args, err, out)
		}
	}
	if len(volumes) > 0 {
		t.Errorf("`down` left the anonymous volumes %v", volumes)
	}
}

// volumes returns the containers' volumes, which are no directories of the project and no tmpfs.
func (s stack) volumes(t *testing.T, ctx context.Context) []string {
	var out []string
	for _, c := range s.containers(t, ctx) {
		for _, m := range c.Mounts {
			if m.Type == "volume" {
				out = append(out, c.Name+m.Destination)
			}
		}
	}
	return out
}

type composeContainer struct {
	Name       string
	Mounts     []struct{ Type, Destination string }
	HostConfig struct{ Memory int64 }
	State      struct {
		Running, OOMKilled bool
		Health             struct{ Status string }
	}
}

func (s stack) containers(t *testing.T, ctx context.Context) []composeContainer {
	ids, err := exec.CommandContext(ctx, "docker", "ps", "-aq", "--filter", "label=com.docker.compose.project="+s.name).Output()
	if err != nil {
		t.Error(err)
		return nil
	}
	list := strings.Fields(string(ids))
	if len(list) == 0 {
		return nil
	}
	text, err := exec.CommandContext(ctx, "docker", append([]string{"inspect"}, list...)...).Output()
	if err != nil {
		t.Error(err)
		return nil
	}
	var out []composeContainer
	if err := json.Unmarshal(text, &out); err != nil {
		t.Error(err)
	}
	return out
}

// exchange checks that the client on this host sends and receives through a published port.
func (s stack) exchange(t *testing.T, address, topic string) {
	t.Helper()
	cliOK(t, address, "", "topics", "declare", topic)
	cliOK(t, address, "", "publish", "--topic", topic, "hello")
	if got := cliOK(t, address, "", "consume", "--topic", topic, "--group", "default", "--count", "1", "--timeout", "30s"); got != "hello\n" {
		t.Errorf("%s: got %q", address, got)
	}
}

func (s stack) healthy(t *testing.T, n int) {
	t.Helper()
	containers := s.containers(t, t.Context())
	if len(containers) != n {
		t.Errorf("%d containers, want %d", len(containers), n)
	}
	for _, c := range containers {
		if c.State.Health.Status != "healthy" || !c.State.Running || c.State.OOMKilled || c.HostConfig.Memory == 0 {
			t.Errorf("%+v", c)
		}
	}
}

func TestComposeUp(t *testing.T) {
	s := composeUp(t, "")
	s.healthy(t, 2)
	rabbit, kafka := "amqp://localhost:"+s.port["RABBITMQ_PORT"]+"/", "kafka://localhost:"+s.port["KAFKA_PORT"]
	managed := rabbit + "?management=" + url.QueryEscape("http://localhost:"+s.port["RABBITMQ_UI_PORT"])
	s.exchange(t, rabbit, "prompts")
	s.exchange(t, kafka, "prompts")
	if got := cliOK(t, managed, "", "topics", "list"); !strings.Contains(got, "prompts") {
		t.Errorf("the management API lists %q", got)
	}

	// `stop` and `start` keep the data.
	cliOK(t, rabbit, "", "publish", "--topic", "prompts", "kept")
	cliOK(t, kafka, "", "publish", "--topic", "prompts", "kept")
	for _, args := range [][]string{{"stop"}, {"up", "--detach", "--wait", "--pull", "never", "--no-recreate"}} {
		if _, err := s.compose(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{rabbit, kafka} {
		if got := cliOK(t, address, "", "consume", "--topic", "prompts", "--group", "default", "--count", "1", "--timeout", "30s"); got != "kept\n" {
			t.Errorf("%s: got %q after stop and start", address, got)
		}
	}
}

// TestComposeUpClassic names two services alone, as who needs only old versions does: their profile and ZooKeeper come with them.
func TestComposeUpClassic(t *testing.T) {
	s := composeUp(t, "", "rabbitmq-classic", "kafka-classic")
	s.healthy(t, 3)
	s.exchange(t, "amqp://localhost:"+s.port["CLASSIC_RABBITMQ_PORT"]+"/", "prompts")
	s.exchange(t, "kafka://localhost:"+s.port["CLASSIC_KAFKA_PORT"], "prompts")
}

// TestComposeUpDemo lets the demo run over both brokers, and asks the dashboard's queries of the stack's own Prometheus meanwhile.
func TestComposeUpDemo(t *testing.T) {
	if os.Getenv("STAGEBUS_LONG") == "" {
		t.Skip("takes minutes: set STAGEBUS_LONG")
	}
	demos := []string{"demo-rabbitmq", "demo-kafka"}
	services := append([]string{"prometheus"}, demos...)
	grafana := composeImage(t, composeLoad(t, all).Services["grafana"].Image)
	if grafana {
		services = append(services, "grafana")
	}
	s := composeUp(t, "", services...)

	// One message that stays gives a queue depth, whatever the demo's queues have when they are looked at.
	rabbit := "amqp://localhost:" + s.port["RABBITMQ_PORT"] + "/"
	cliOK(t, rabbit, "", "topics", "declare", "left")
	cliOK(t, rabbit, "", "publish", "--topic", "left", "left")

	base := "http://localhost:" + s.port["PROMETHEUS_PORT"]
	queries := dashboardQueries(t)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for len(queries) > 0 {
		var err error
		queries, err = dashboardAsk(t.Context(), base, "20s", queries)
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
	if grafana {
		var d struct{ Dashboard struct{ Title string } }
		if err := composeJSON(t.Context(), "http://localhost:"+s.port["GRAFANA_PORT"]+"/api/dashboards/uid/stagebus", &d); err != nil || d.Dashboard.Title != "stagebus" {
			t.Errorf("Grafana: %+v, %v", d, err)
		}
	} else {
		t.Log("without Grafana, whose image isn't here")
	}

	for _, name := range demos {
		id, err := s.compose(t.Context(), "ps", "-aq", name)
		if err != nil {
			t.Fatal(err)
		}
		code, err := exec.CommandContext(t.Context(), "docker", "wait", strings.TrimSpace(id)).Output()
		logs, _ := s.compose(t.Context(), "logs", "--no-log-prefix", name)
		if err != nil || strings.TrimSpace(string(code)) != "0" {
			t.Errorf("%s ended with %s, %v:\n%s", name, code, err, logs)
		}
		if !strings.Contains(logs, "Isaac Newton's Opticks") {
			t.Errorf("%s didn't find its text:\n%s", name, logs)
		}
	}
}
