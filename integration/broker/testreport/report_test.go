package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module with every outcome there is goes through the real go test.
func TestReport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26\n",
		"good/good_test.go": `package good
import "testing"
func TestGood(t *testing.T) { t.Log("nobody reads this") }
func TestAway(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("no broker:\nfor two reasons") }) }
func TestSilent(t *testing.T) { t.SkipNow() }
`,
		"bad/bad_test.go": `package bad
import "testing"
func TestBad(t *testing.T) { t.Log("before"); t.Run("sub", func(t *testing.T) { t.Error("broken") }) }
func TestGood(t *testing.T) {}
`,
		"panics/panics_test.go": "package panics\nimport \"testing\"\nfunc TestPanic(t *testing.T) { panic(\"at the disco\") }\n",
		"broken/broken_test.go": "package broken\nfunc f() { undefined() }\n",
		"none/none.go":          "package none\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	r := newReport(&out)
	if err := test(r, dir, []string{"./..."}); err == nil {
		t.Error("no error from a module that fails")
	}
	live := out.String()
	out.Reset()
	r.summary()
	summary := out.String()

	for _, want := range []string{
		"broken\n", "before\n", "--- FAIL: TestBad/sub", "at the disco", "undefined: undefined",
		"example.com/m/good: 2 passed, 2 skipped", "example.com/m/bad FAILED: 1 passed, 0 skipped",
	} {
		if !strings.Contains(live, want) {
			t.Errorf("the report has no %q", want)
		}
	}
	for _, noise := range []string{"nobody reads this", "=== RUN", "ok  \t"} {
		if strings.Contains(live, noise) {
			t.Errorf("the report has %q in it", noise)
		}
	}
	for _, want := range []string{
		"skipped: 2\n", "  no broker: for two reasons\n      example.com/m/good TestAway/sub\n", "  no reason given\n",
		"ok  \texample.com/m/good\t", "FAIL\texample.com/m/bad\t", "FAIL\texample.com/m/broken [build failed]", "FAIL\texample.com/m/panics\t",
	} {
		if !strings.Contains(summary, want) {
			t.Errorf("the summary has no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("report:\n%s\nsummary:\n%s", live, summary)
	}
}
