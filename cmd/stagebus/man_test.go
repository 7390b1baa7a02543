package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every command has a page, the same one each time, and man has nothing to complain about.
func TestMan(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "man", "man1"), t.TempDir()
	r := runWith(t.Context(), "", nil, "man", first)
	r.want(t, exitOK, "", "pages into "+first)
	if r := runWith(t.Context(), "", nil, "man", second, "--output", "json"); r.code != exitOK || !strings.Contains(r.out, `"pages":`) {
		t.Errorf("%+v", r)
	}
	names, err := filepath.Glob(filepath.Join(first, "*.1"))
	if err != nil || len(names) < 20 {
		t.Fatalf("%v, %d pages", err, len(names))
	}
	man, manErr := exec.LookPath("man")
	for _, name := range names {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := os.ReadFile(filepath.Join(second, filepath.Base(name)))
		if err != nil || string(again) != string(page) {
			t.Errorf("%s differs: %v", name, err)
		}
		if manErr != nil {
			continue
		}
		var errs strings.Builder
		c := exec.CommandContext(t.Context(), man, "--warnings", "-l", name)
		c.Env = append(os.Environ(), "MANPAGER=cat", "MAN_KEEP_STDERR=1")
		c.Stderr = &errs
		if shown, err := c.Output(); err != nil || errs.Len() > 0 || !strings.Contains(string(shown), "NAME") {
			t.Errorf("%s: %v, %s", name, err, &errs)
		}
	}
	page, err := os.ReadFile(filepath.Join(first, "stagebus-publish.1"))
	for _, want := range []string{
		".TH \"STAGEBUS-PUBLISH\" 1", "stagebus\\-publish \\- Publish messages", "\\fB\\-t\\fR, \\fB\\-\\-topic\\fR \\fItopic\\fR\n",
		".SH EXAMPLES\n.nf\n  stagebus publish \\-\\-topic prompts '{\"id\": 1,", "\\fBstagebus\\fR(1)",
	} {
		if err != nil || !strings.Contains(string(page), want) {
			t.Errorf("%v, no %q in\n%s", err, want, page)
		}
	}
	root, err := os.ReadFile(filepath.Join(first, "stagebus.1"))
	for _, k := range kinds {
		if err != nil || !strings.Contains(string(root), ", "+roff(k.word)) {
			t.Errorf("%v, no %q in the page of stagebus", err, k.word)
		}
	}
	r = runWith(t.Context(), "", nil, "man", filepath.Join(names[0], "x"))
	r.want(t, exitFailure, "", names[0])
}

func TestRoff(t *testing.T) {
	if got, want := roff(".a\n'b\n-c\\d"), "\\&.a\n\\&'b\n\\-c\\ed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
