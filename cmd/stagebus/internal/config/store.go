package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/goccy/go-yaml"
)

// Store is the places of the two files. The zero value is nowhere: it reads as empty and can't be written.
type Store struct{ Config, State string }

// errNowhere says that there is no home to keep a file in.
var errNowhere = errors.New("no place to keep it: neither XDG_CONFIG_HOME nor HOME is set")

// Locate finds the user's files. On every Unix config.yaml is below XDG_CONFIG_HOME, or ~/.config, and state.yaml below XDG_STATE_HOME, or
// ~/.local/state; where only the first variable is set, both are below it: whoever has his configuration elsewhere for a while doesn't mean
// the context that he chose here. Variables that are relative count as unset. On other systems both are below os.UserConfigDir.
func Locate(getenv func(string) string) Store {
	var config, state string
	switch runtime.GOOS {
	case "windows", "plan9", "js", "wasip1":
		dir, err := os.UserConfigDir()
		if err != nil {
			return Store{}
		}
		config, state = dir, dir
	default:
		config, state = absolute(getenv("XDG_CONFIG_HOME")), absolute(getenv("XDG_STATE_HOME"))
		if state == "" {
			state = config
		}
		home := absolute(getenv("HOME"))
		if config == "" && home != "" {
			config = filepath.Join(home, ".config")
		}
		if state == "" && home != "" {
			state = filepath.Join(home, ".local", "state")
		}
	}
	if config == "" || state == "" {
		return Store{}
	}
	return Store{filepath.Join(config, "stagebus", "config.yaml"), filepath.Join(state, "stagebus", "state.yaml")}
}

func absolute(path string) string {
	if !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// Dir is where relative paths in config.yaml begin.
func (s Store) Dir() string { return filepath.Dir(s.Config) }

// Load reads config.yaml; one that doesn't exist is empty. What is wrong with it is a *[SyntaxError].
func (s Store) Load() (*File, error) {
	f := &File{Contexts: map[string]Context{}, comments: comments{}}
	b, err := readFile(s.Config)
	if err != nil || len(b) == 0 {
		return f, err
	}
	return f, decode(s.Config, b, f)
}

// Save replaces config.yaml. Comments stay.
func (s Store) Save(f *File) error {
	b, err := yaml.MarshalWithOptions(f, yaml.WithComment(yaml.CommentMap(f.comments)))
	if err != nil {
		return err
	}
	return replace(s.Config, b)
}

// LoadState reads state.yaml; one that doesn't exist is the zero State.
func (s Store) LoadState() (State, error) {
	var st State
	b, err := readFile(s.State)
	if err != nil || len(b) == 0 {
		return st, err
	}
	return st, strict(s.State, b, &st)
}

// SaveState replaces state.yaml.
func (s Store) SaveState(st State) error {
	b, err := yaml.Marshal(st)
	if err != nil {
		return err
	}
	return replace(s.State, b)
}

func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), err
}

// replace writes a file that is either the old one or the new one at any moment, whatever happens, and readable by its owner only. A
// symbolic link stays one: some keep their configuration elsewhere.
func replace(path string, b []byte) (err error) {
	if path == "" {
		return errNowhere
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // has mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
