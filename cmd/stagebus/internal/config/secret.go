package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Secret says where a secret is: env:NAME, an environment variable, or file:PATH, a file whose content it is, but for a line feed at its
// end. A path begins with / or ~/, or counts from the directory of config.yaml.
type Secret string

// Lookup is what secrets are looked up in.
type Lookup struct {
	Getenv func(string) string
	Dir    string // relative paths begin here
}

// maxSecret bounds a file that is read: a path that names something else is a mistake.
const maxSecret = 64 << 10

// Check returns an error unless s has the form of a reference. The error doesn't quote s, which may be the secret itself.
func (s Secret) Check() error {
	kind, where, ok := strings.Cut(string(s), ":")
	if !ok || where == "" || kind != "env" && kind != "file" {
		return errors.New("not a reference: it is env:NAME (an environment variable) or file:PATH, never the secret itself")
	}
	return nil
}

// Absolute returns s with a path that depends on neither the working directory nor the shell.
func (s Secret) Absolute(home string) (Secret, error) {
	path, ok := strings.CutPrefix(string(s), "file:")
	if !ok {
		return s, nil
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok && home != "" {
		path = filepath.Join(home, rest)
	}
	path, err := filepath.Abs(path)
	return Secret("file:" + path), err
}

// Resolve returns the secret. Its errors name the reference and what to do, and wrap what the system said.
func (s Secret) Resolve(look Lookup) (string, error) {
	if err := s.Check(); err != nil {
		return "", err
	}
	kind, where, _ := strings.Cut(string(s), ":")
	if kind == "env" {
		v := look.Getenv(where)
		if v == "" {
			return "", fmt.Errorf("%s: that environment variable is empty or not set: export %s=…", s, where)
		}
		return v, nil
	}
	if rest, ok := strings.CutPrefix(where, "~/"); ok {
		where = filepath.Join(look.Getenv("HOME"), rest)
	}
	if !filepath.IsAbs(where) {
		where = filepath.Join(look.Dir, where)
	}
	v, err := read(where)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s, err)
	}
	return v, nil
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("the file has more than %d bytes: that is no password", maxSecret)
	case v == "":
		return "", errors.New("the file is empty")
	}
	return v, nil
}
