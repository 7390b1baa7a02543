package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// The command's image, without a Docker to build it; TestComposeUpDemo does.

// TestComposeImageContext: what the command is built from is what .dockerignore lets through, and tests aren't, so that a build works
// and isn't done again for nothing.
func TestComposeImageContext(t *testing.T) {
	f, err := os.Open("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	ignored := func(file string) bool {
		t.Helper()
		is, err := ignore.MatchesOrParentMatches(file)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}

	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		`{{$d := .Dir}}{{if .Module}}{{if .Module.Main}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`,
		"./cmd/stagebus")
	list.Dir = root
	// As in the image: for its system and outside of the workspace.
	list.Env = append(os.Environ(), "GOWORK=off", "GOOS=linux", "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := append(strings.Fields(string(out)), root+"/go.mod", root+"/go.sum")
	if len(files) < 50 {
		t.Fatalf("the command is made of %v", files)
	}
	for _, file := range files {
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		if ignored(name) {
			t.Errorf("%s is needed, and .dockerignore keeps it out", name)
		}
	}
	for _, name := range []string{"README.md", ".git/HEAD", "bin/withbrokers", "integration/go.mod", "compose/prometheus.yml", "all_test.go", "cmd/stagebus/main_test.go"} {
		if !ignored(name) {
			t.Errorf("%s isn't needed, and .dockerignore lets it in", name)
		}
	}
}

// TestComposeImageGo: the image is built with the Go that go.mod asks for.
func TestComposeImageGo(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatal("go.mod has no version of Go")
	}
	if image := composeGoImage(t); !strings.HasPrefix(image, "golang:"+string(m[1])+"-") {
		t.Errorf("go.mod wants Go %s, the image is %s", m[1], image)
	}
}
