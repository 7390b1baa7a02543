package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
)

// program is one run of the command, apart from the process, so that tests run it whole.
type program struct {
	streams
	ran bool // a command's own code was reached: errors before it are the command line's

	output         string // of --output
	broker         string
	context        string            // of --context
	said           map[string]string // where the value of a flag comes from, see settle
	from           string            // where the broker was said, once its address is known
	connectTimeout time.Duration
	quiet          bool
	color          string // auto, always or never; see colour
	progress       string // of --progress: auto, always or never
	events         events

	meter   *meter.Meter
	metrics string       // address of --metrics
	bare    bool         // nothing is counted but for --metrics: what is measured is the broker
	server  *http.Server // of --metrics, once it serves
}

// run executes a command line and returns its exit code. Ending ctx is the first signal: take in nothing more, finish what was
// begun. It may be called concurrently. After an interrupted publish, a goroutine may be left in a read of s.in that nothing can wake.
func run(ctx context.Context, args []string, s streams) int {
	s.err = &syncWriter{w: s.err} // events of adapters come from their goroutines
	p := &program{streams: s, meter: meter.New()}
	defer p.stopMetrics()
	root := p.command()
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err = besides(err, errReaderLeft); err == nil {
		return exitOK
	}
	return p.fail(c, err, args)
}

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "stagebus",
		Short: "Publish and consume messages over RabbitMQ and Kafka",
		Long: `stagebus publishes and consumes messages over RabbitMQ and Kafka brokers, with the same commands for both.

The broker is a URL, in --broker, in STAGEBUS_BROKER (where a password is not shown by ps), or kept under a name by
"stagebus context":
  amqp://guest:guest@localhost:5672/    RabbitMQ; amqps:// with TLS
  kafka://localhost:9092                Kafka, several hosts with commas; kafkas:// with TLS
  memory://                             inside this process, to try a command

Data goes to standard output, all else to standard error.
Flags beat STAGEBUS_ variables, as STAGEBUS_OUTPUT for --output, and these the context: "stagebus config explain" shows
what holds. With --output json, results and errors are JSON, one object a line, but for the reports of
doctor, bench and demo, which have many lines.
Exit codes: 0 done; 1 the broker or a message failed; 2 the command line or the configuration is wrong;
3 consume ended before it had the messages that --count asked for.
The first interrupt stops in order, the second at once.`,
		SilenceErrors: true, // run prints them, on one line
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(p.in) // before cobra's own commands are made, which keep what is set then
	root.SetOut(reported{p.out})
	root.SetErr(p.err)
	p.output = "text"
	root.PersistentFlags().VarP(&choice{&p.output, []string{"text", "json"}}, "output", "o", "`format` of results and errors: text, which may change, or json")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return p.settle(c) }
	root.AddCommand(p.publishCommand(), p.consumeCommand(), p.benchCommand(), p.topicsCommand(), p.contextCommand(), p.configCommand(), p.manCommand(), p.versionCommand())
	root.AddCommand(p.doctorCommand())
	root.AddCommand(p.devCommand())
	root.AddCommand(p.demoCommand())
	p.terminalFlags(root)
	root.SetFlagErrorFunc(flagError)
	strict(root)
	plainArgs(root)
	p.completions(root)
	return root
}

// strict makes the commands that cobra adds refuse names that don't exist: by itself it shows help and calls that success.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err != nil || len(rest) == 0 {
					return err
				}
				return noSuchCommand(found, rest)
			}
		case "completion":
			c.Args = noSuchCommand
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}

// noSuchCommand is for commands that are nothing without a subcommand.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	s := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		s += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return &argsError{s}
}

// json reports whether results are to be JSON.
func (p *program) json() bool { return p.output == "json" }

// does wraps a command's code.
func (p *program) does(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		p.ran = true
		return f(c.Context(), args)
	}
}

// notef says something on standard error that isn't an error.
func (p *program) notef(format string, args ...any) {
	if !p.quiet {
		p.warnf(format, args...)
	}
}

// warnf is notef for what --quiet doesn't silence: something failed, and the command goes on.
func (p *program) warnf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if p.json() {
		p.sayJSON(map[string]string{"note": oneLine(s)})
		return
	}
	p.say(s)
}

// say writes a line to standard error. If that is closed, there is nobody to tell.
func (p *program) say(s string) { _, _ = fmt.Fprintf(p.err, "stagebus: %s\n", oneLine(s)) }

// syncWriter is standard error: written to by one goroutine at a time, with a line of status below all that is written.
type syncWriter struct {
	mu    sync.Mutex // protects the following
	w     io.Writer
	shown string // the status, which has no line feed
}

const eraseLine = "\r\x1b[K"

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown == "" {
		return s.w.Write(b)
	}
	// All at once, or it flickers.
	if _, err := s.w.Write(append(append([]byte(eraseLine), b...), s.shown...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// status replaces the status; "" removes it. If standard error is closed, there is nobody to tell.
func (s *syncWriter) status(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown != "" || line != "" {
		_, _ = io.WriteString(s.w, eraseLine+line)
	}
	s.shown = line
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
