package integration

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	compose "github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// The local stack, docker-compose.yml, as it loads; compose_up_test.go brings it up.

const composeFile = "../docker-compose.yml"

// composeServices are the services that each profile adds to those of the first, which always run.
var composeServices = map[string][]string{
	"":        {"rabbitmq", "kafka"},
	"demo":    {"doctor", "demo-rabbitmq", "demo-kafka"},
	"obs":     {"prometheus", "grafana"},
	"classic": {"rabbitmq-classic", "zookeeper-classic", "kafka-classic"},
}

// composeLoad loads the stack as `docker compose` does. What depends on a service of a profile that isn't active is an error there.
func composeLoad(t *testing.T, profiles []string, env ...string) *types.Project {
	t.Helper()
	o, err := compose.NewProjectOptions([]string{composeFile}, compose.WithEnv(env), compose.WithProfiles(profiles))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// all is the name of every profile together.
var all = []string{"*"}

func TestComposeProfiles(t *testing.T) {
	whole := slices.Clone(composeServices[""])
	for profile, services := range composeServices {
		want, profiles := slices.Clone(composeServices[""]), []string{}
		if profile != "" {
			want, profiles = append(want, services...), append(profiles, profile)
			whole = append(whole, services...)
		}
		slices.Sort(want)
		if got := composeLoad(t, profiles).ServiceNames(); !slices.Equal(got, want) {
			t.Errorf("profile %q has %v, want %v", profile, got, want)
		}
	}
	slices.Sort(whole)
	if got := composeLoad(t, all).ServiceNames(); !slices.Equal(got, whole) {
		t.Errorf("all profiles have %v, want %v", got, whole)
	}
}

// TestComposeManners: what every service of a stack on somebody's own machine owes to that machine.
func TestComposeManners(t *testing.T) {
	p := composeLoad(t, all)
	if len(p.Volumes) != 0 {
		t.Errorf("volumes %v would outlive `down`", p.VolumeNames())
	}
	for name, s := range p.Services {
		if h := s.HealthCheck; composeOnce(p, name) {
			if h != nil || s.Restart != types.RestartPolicyNo {
				t.Errorf("%s runs once, before others: health check %v, restart policy %q", name, h, s.Restart)
			}
		} else if h == nil || h.Disable || len(h.Test) < 2 || h.Interval == nil || h.Timeout == nil || h.Retries == nil {
			t.Errorf("%s has no complete health check: %+v", name, h)
		} else if h.Test[0] != "CMD" {
			t.Errorf("%s: its health check needs a shell of the image: %v", name, h.Test)
		} else if patience := time.Duration(*h.Interval) * time.Duration(*h.Retries); patience < time.Minute {
			t.Errorf("%s is given up after %v, which is too soon for a slow machine", name, patience)
		}
		if s.MemLimit <= 0 {
			t.Errorf("%s has no memory limit", name)
		}
		if l := s.Logging; l == nil || l.Driver != "json-file" || l.Options["max-size"] == "" || l.Options["max-file"] == "" {
			t.Errorf("%s has no limit to its log: %+v", name, s.Logging)
		}
		if s.Restart == "" || s.Restart == "always" || s.Restart == types.RestartPolicyUnlessStopped {
			t.Errorf("%s: restart policy %q", name, s.Restart)
		}
		if u := s.Ulimits["nofile"]; u == nil || u.Single > 65536 {
			t.Errorf("%s: the limit of open files is %+v", name, u)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to %q", name, port.Published, port.HostIP)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s: %s is writable or missing: %v", name, v.Source, err)
			}
		}
	}
}

// composeOnce says whether others wait until a service has done its work and ended.
func composeOnce(p *types.Project, name string) bool {
	for _, s := range p.Services {
		if d, ok := s.DependsOn[name]; ok && d.Condition == types.ServiceConditionCompletedSuccessfully {
			return true
		}
	}
	return false
}

// TestComposeMemory: what may be filled in memory fits into a container's limit, so that the limit needs nobody killed.
func TestComposeMemory(t *testing.T) {
	heap := regexp.MustCompile(`-Xmx(\d+)m`)
	size := regexp.MustCompile(`size=(\d+)m`)
	for name, s := range composeLoad(t, all).Services {
		const overhead = 200 << 20 // of a Java VM, beside its heap
		var sum types.UnitBytes
		if opts := s.Environment["KAFKA_HEAP_OPTS"]; opts != nil {
			sum += composeMegabytes(t, heap, *opts) + overhead
		}
		for _, m := range s.Tmpfs {
			sum += composeMegabytes(t, size, m)
		}
		if sum > s.MemLimit {
			t.Errorf("%s may take %d MiB of memory, its limit is %d", name, sum>>20, s.MemLimit>>20)
		}
	}
}

func composeMegabytes(t *testing.T, re *regexp.Regexp, s string) types.UnitBytes {
	t.Helper()
	m := re.FindStringSubmatch(s)
	if m == nil {
		t.Fatalf("%q has nothing like %v", s, re)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return types.UnitBytes(n) << 20
}

// TestComposeAdvertised: a client of this host is told the port that is published, and a container the name of the service.
func TestComposeAdvertised(t *testing.T) {
	for _, env := range [][]string{nil, {"KAFKA_PORT=21001", "CLASSIC_KAFKA_PORT=21002"}} {
		p := composeLoad(t, all, env...)
		for name, want := range map[string]string{"kafka": "9092", "kafka-classic": "9093"} {
			for _, v := range env {
				if port, found := strings.CutPrefix(v, map[string]string{"kafka": "KAFKA", "kafka-classic": "CLASSIC_KAFKA"}[name]+"_PORT="); found {
					want = port
				}
			}
			s := p.Services[name]
			if len(s.Ports) != 1 || s.Ports[0].Published != want {
				t.Fatalf("%s publishes %+v, want %s", name, s.Ports, want)
			}
			listeners, advertised := composeListeners(t, s, "KAFKA_LISTENERS"), composeListeners(t, s, "KAFKA_ADVERTISED_LISTENERS")
			if got := "localhost:" + want; advertised["HOST"] != got || listeners["HOST"] != fmt.Sprintf(":%d", s.Ports[0].Target) {
				t.Errorf("%s advertises %v for what it listens on at %v, want %s", name, advertised, listeners, got)
			}
			if advertised["NETWORK"] != name+listeners["NETWORK"] || s.Hostname != name {
				t.Errorf("%s, in the network: advertises %v for what it listens on at %v", name, advertised, listeners)
			}
			protocols := *s.Environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
			for listener := range listeners {
				if !slices.Contains(strings.Split(protocols, ","), listener+":PLAINTEXT") {
					t.Errorf("%s: listener %s has no protocol in %s", name, listener, protocols)
				}
			}
		}
	}
}

func composeListeners(t *testing.T, s types.ServiceConfig, variable string) map[string]string {
	t.Helper()
	v := s.Environment[variable]
	if v == nil {
		t.Fatalf("%s has no %s", s.Name, variable)
	}
	out := map[string]string{}
	for _, l := range strings.Split(*v, ",") {
		name, address, found := strings.Cut(l, "://")
		if !found {
			t.Fatalf("%s: %s=%s", s.Name, variable, *v)
		}
		out[name] = address
	}
	return out
}

var (
	composeVariable = regexp.MustCompile(`\$\{([A-Z_]+)(?::-([^}]*))?\}`)
	composeDocument = regexp.MustCompile(`\b([A-Z_]+)=(\S+)`)
)

// composeDefaults returns the variables that the file uses, with their defaults.
func composeDefaults(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]string{}
	for _, m := range composeVariable.FindAllStringSubmatch(string(text), -1) {
		if was, again := used[m[1]]; again && was != m[2] {
			t.Errorf("%s has the defaults %q and %q", m[1], was, m[2])
		}
		used[m[1]] = m[2]
	}
	return used
}

// TestComposeVariables: the variables that the file uses are those that its head explains, with the same defaults.
func TestComposeVariables(t *testing.T) {
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "# Variables")
	table, _, ended := strings.Cut(table, "# For example")
	if !found || !ended {
		t.Fatal("its head has no list of variables")
	}
	documented, used := map[string]string{}, composeDefaults(t)
	for _, m := range composeDocument.FindAllStringSubmatch(table, -1) {
		documented[m[1]] = m[2]
	}
	if !maps.Equal(documented, used) {
		t.Errorf("used       %v\ndocumented %v", used, documented)
	}

	// Each port is one published port, and no two are the same: everything may run at once.
	before := composePublished(t, nil)
	for name, value := range used {
		if !strings.HasSuffix(name, "_PORT") {
			continue
		}
		if !before[value] {
			t.Errorf("%s=%s is published by nobody", name, value)
		}
		after := composePublished(t, []string{name + "=21003"})
		if !after["21003"] || after[value] || len(after) != len(before) {
			t.Errorf("%s=21003 publishes %v, before %v", name, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	}
	for name, value := range used {
		if strings.HasSuffix(name, "_VERSION") {
			composeVersions(t, name, value)
		}
	}
}

func composePublished(t *testing.T, env []string) map[string]bool {
	t.Helper()
	ports := map[string]bool{}
	for name, s := range composeLoad(t, all, env...).Services {
		for _, p := range s.Ports {
			if ports[p.Published] {
				t.Errorf("%s and another both publish %s", name, p.Published)
			}
			ports[p.Published] = true
		}
	}
	return ports
}

// composeVersions checks that a variable is the version in an image's tag, and never "latest".
func composeVersions(t *testing.T, variable, value string) {
	t.Helper()
	changed := 0
	before, after := composeLoad(t, all), composeLoad(t, all, variable+"=0.0.0")
	for name, s := range before.Services {
		if now := after.Services[name].Image; now != s.Image {
			changed++
			if strings.Replace(now, ":0.0.0", ":"+value, 1) != s.Image {
				t.Errorf("%s: %s and %s", variable, s.Image, now)
			}
		}
	}
	if changed == 0 || value == "" || value == "latest" {
		t.Errorf("%s=%s changes the images of %d services", variable, value, changed)
	}
}
