// Command stagebus publishes and consumes messages over RabbitMQ and Kafka brokers from the shell, and looks after their topics:
//
//	stagebus publish --broker amqp://guest:guest@localhost/ --topic prompts '{"id": 1}'
//	stagebus consume --broker kafka://localhost:9092 --topic prompts --format json | jq .body
//
// Data goes to standard output, all else to standard error. Exit codes: 0, done; 1, the broker or a message failed; 2, the command
// line is wrong; 3, consume ended before it had the messages that --count asked for.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(process(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, os.Getenv}))
}

// streams are what a process is given by its caller.
type streams struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
}

// process is run with the signals of a process: the first one stops in order, the second one at once.
func process(args []string, s streams) int {
	// By default a write to a pipe whose reader has left kills the process, with messages printed and not settled, or the other way
	// round. Ignored, it becomes an error of the write.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() { // lives as long as the process
		<-signals
		cancel(errInterrupted)
		<-signals
		os.Exit(exitFailure)
	}()
	return run(ctx, args, s)
}
