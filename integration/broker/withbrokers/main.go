// Command withbrokers runs a command with a RabbitMQ and a Kafka beside it: it starts what the environment does not name,
// says in the command's environment where they are, and ends them with the command. Where no broker is to be had, it says
// so and runs the command all the same: tests that need one skip themselves. Its exit code is the command's.
//
//	withbrokers go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/stagebus/stagebus/integration/broker"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: withbrokers COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	began := time.Now()
	say("starting brokers")
	up, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	env, down, missing, err := broker.Up(up)
	defer func() {
		// ctx may have ended, and it is then that the brokers must not stay.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := down(ctx); err != nil {
			say("ending brokers: %v", err)
		}
	}()
	if err != nil {
		say("%v", err)
		return 1
	}
	if missing != nil {
		say("%v", missing)
	}
	for _, v := range env {
		say("%s", credentials.ReplaceAllString(v, "://…@"))
	}
	say("brokers took %v", time.Since(began).Round(100*time.Millisecond))

	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Asked to end, the command may clean up first.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	return 0
}

// credentials are not printed: the environment's brokers may have real ones.
var credentials = regexp.MustCompile(`://[^@/]*@`)

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "withbrokers: "+format+"\n", args...) }
