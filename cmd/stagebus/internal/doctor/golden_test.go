package doctor

import (
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// examine looks at a broker, which must not take long, and compares what it says with a golden file. replace are pairs of what differs from
// run to run and what stands for it.
func examine(t *testing.T, url string, o Options, replace ...string) Report {
	t.Helper()
	p, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := Check(ctx, p, o)
	text := settled(r.Text(Style{UTF8: true}), replace...)
	for _, secret := range []string{"hunter2", "%21"} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is shown:\n%s", text)
		}
	}
	file := filepath.Join("testdata", strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-")+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("differs from %s (-update writes it):\n%s", file, text)
	}
	return r
}

var (
	times = regexp.MustCompile(` +\d+(\.\d)? (ms|s)\b`)
	dates = regexp.MustCompile(`20\d\d-\d\d-\d\d`)
	given = regexp.MustCompile(`(doctor\.)[0-9a-f]{8}`)
	kinds = regexp.MustCompile(`\d+ kinds of requests, Fetch up to version \d+`)
)

// settled puts words for what differs from run to run.
func settled(text string, replace ...string) string {
	text = strings.NewReplacer(replace...).Replace(text)
	text = times.ReplaceAllString(text, " TIME")
	text = dates.ReplaceAllString(text, "DATE")
	text = kinds.ReplaceAllString(text, "N kinds of requests, Fetch up to version N")
	return given.ReplaceAllString(text, "${1}RANDOM")
}

// port stands for the port of an address.
func port(address, name string) []string {
	_, p, _ := net.SplitHostPort(address)
	return []string{":" + p, ":" + name}
}
