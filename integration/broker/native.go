package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// sharedName is the instance that integration/brokers uses when it is given no name.
const sharedName = "shared"

var instances atomic.Int64

// native controls one kind of broker of one instance of integration/brokers.
type native struct {
	name string
	kind Kind
}

func startNative(ctx context.Context, k Kind) (*Instance, error) {
	n := native{name: fmt.Sprintf("p%d-%d-%s", os.Getpid(), instances.Add(1), k), kind: k}
	b, err := nativeUp(ctx, n.name, k)
	if err != nil {
		return nil, errors.Join(err, n.end(context.WithoutCancel(ctx)))
	}
	return &Instance{Broker: *b, ctl: n}, nil
}

// nativeUp starts a broker of the named instance, unless it runs already.
func nativeUp(ctx context.Context, name string, k Kind) (*Broker, error) {
	out, err := script(ctx, name, "up", string(k))
	if err != nil {
		return nil, err
	}
	b := &Broker{kind: k, way: Native, vars: map[string]string{}}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "="); ok {
			b.vars[name] = strings.ReplaceAll(value, `\`, "") // as the shell quotes them
		}
	}
	if b.URL() == "" {
		return nil, fmt.Errorf("broker: integration/brokers up printed no %s: %q", variables[k][0], out)
	}
	return b, nil
}

func (n native) stop(ctx context.Context) error   { return n.command(ctx, "stop") }
func (n native) start(ctx context.Context) error  { return n.command(ctx, "start") }
func (n native) kill(ctx context.Context) error   { return n.command(ctx, "kill") }
func (n native) pause(ctx context.Context) error  { return n.command(ctx, "pause") }
func (n native) resume(ctx context.Context) error { return n.command(ctx, "resume") }

func (n native) command(ctx context.Context, command string) error {
	_, err := script(ctx, n.name, command, string(n.kind))
	return err
}

func (n native) end(ctx context.Context) error {
	_, err := script(ctx, n.name, "down")
	return err
}

// script runs integration/brokers and returns its standard output. A named instance belongs to this process: should it
// die without a chance to clean up, the next user of the script ends the instance.
func script(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := scriptPath()
	if err != nil {
		return nil, err
	}
	if name != sharedName {
		args = append(args, "--name", name, "--owner", strconv.Itoa(os.Getpid()))
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	for _, v := range os.Environ() {
		// Chosen ports are meant for the shared broker.
		if name != sharedName && strings.HasPrefix(v, "STAGEBUS_BROKERS_") && strings.Contains(v, "_PORT=") {
			continue
		}
		cmd.Env = append(cmd.Env, v)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("integration/brokers %s: %w\n%s", strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// scriptPath looks for integration/brokers in the working directory and above it: go test runs a test in the folder of
// its package.
func scriptPath() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("broker: %w", err)
	}
	for {
		path := filepath.Join(dir, "integration", "brokers")
		if s, err := os.Stat(path); err == nil && s.Mode().IsRegular() {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("broker: no integration/brokers in the working directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}
