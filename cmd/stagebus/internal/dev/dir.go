package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/stagebus/stagebus"
)

// lockFile makes a directory ours. It is locked while a process uses the directory, and holds who that is until it leaves in order:
// text in a file that nobody has locked tells of a kill, or of something that couldn't be written.
const lockFile = "stagebus-dev.lock"

// InUseError says that another process has the directory.
type InUseError struct {
	Dir   string
	Owner string // as it wrote it: process and address; may be empty
}

func (e *InUseError) Error() string {
	owner := e.Owner
	if owner == "" {
		owner = "another process"
	}
	return fmt.Sprintf("directory %s is in use by %s", e.Dir, owner)
}

// Unwrap tells its kind.
func (e *InUseError) Unwrap() error { return stagebus.ErrConflict }

// ForeignError says that a directory holds something else.
type ForeignError struct{ Dir string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("directory %s holds files that aren't a development broker's", e.Dir)
}

// DefaultDir is where a broker keeps its topics if nobody says otherwise: stagebus/dev in the user's directory for state, which is
// $XDG_STATE_HOME or ~/.local/state, and %LocalAppData% on Windows.
func DefaultDir(getenv func(string) string) (string, error) {
	if d := getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "stagebus", "dev"), nil
	}
	if d := getenv("LocalAppData"); runtime.GOOS == "windows" && d != "" {
		return filepath.Join(d, "stagebus", "dev"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither XDG_STATE_HOME nor HOME is set")
	}
	return filepath.Join(home, ".local", "state", "stagebus", "dev"), nil
}

// directory is a directory that this process has for itself. The methods of a nil one, of a broker in memory, do nothing.
type directory struct {
	path   string
	file   *os.File
	killed bool // whoever had it last didn't leave in order: it was killed, or couldn't write everything
	marked bool // our name is in file
}

// claim takes a directory, which is made if it is missing.
func claim(path string) (_ *directory, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(path, lockFile)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
			return nil, errors.Join(err, &ForeignError{path})
		}
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	ours, err := lock(f)
	if err != nil {
		return nil, err
	}
	owner, err := io.ReadAll(io.LimitReader(f, 1000))
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, &InUseError{path, strings.TrimSpace(string(owner))}
	}
	d := &directory{path: path, file: f, killed: len(owner) > 0}
	return d, os.MkdirAll(d.data(), 0o700)
}

// occupied writes down who has the directory: from now on, if we are killed, the next one repairs it.
func (d *directory) occupied(address string) error {
	if d == nil {
		return nil
	}
	d.marked = true
	b := fmt.Appendf(nil, "process %d at %s\n", os.Getpid(), address)
	if _, err := d.file.WriteAt(b, 0); err != nil {
		return err
	}
	return d.file.Truncate(int64(len(b)))
}

// leave gives the directory back: in order, or as it was found if it was never marked. Where something couldn't be written the mark
// stays, so that the next one repairs it.
func (d *directory) leave(inOrder bool) error {
	if d == nil {
		return nil
	}
	var err error
	if d.marked && inOrder {
		err = d.file.Truncate(0)
	}
	return errors.Join(err, d.file.Close())
}

// topics are those that kfake has written down.
func (d *directory) topics() ([]string, error) {
	if d == nil {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(d.data(), "topics.json"))
	if err != nil {
		return nil, err
	}
	var file struct{ Topics []struct{ Name string } }
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("topics.json: %w", err)
	}
	var names []string
	for _, t := range file.Topics {
		names = append(names, t.Name)
	}
	return names, nil
}
