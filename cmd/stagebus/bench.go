package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/bench"
)

type benchFlags struct {
	s         bench.Settings
	sizes     string
	rate      string
	compare   bool
	plot      bool
	save      string
	baseline  string
	tolerance string
	given     func(flag string) bool
}

func (p *program) benchCommand() *cobra.Command {
	o := &benchFlags{s: bench.Defaults(bench.Both)}
	c := &cobra.Command{
		Use:   "bench [BROKER...]",
		Short: "Measure a broker, or several side by side",
		Long: `bench measures a broker: how many messages a second, how late they are, what they cost this machine, and whether
all of them arrived, each once and in the order of its key. Without a subcommand it is "bench both".

It sends as fast as possible first, which gives the messages a second, and then at half of that by a schedule, which gives the latencies; with --rate
only by a schedule of that many a second. A schedule doesn't wait for the broker, and latency counts from the time at which a message was
to be sent: while a broker stalls, all messages are late that were due meanwhile, not only the one that was being sent.
As fast as possible there are no latencies: each message waits for those before it, as many as are let in.

--compare takes several brokers as arguments, URLs or names of contexts, and measures them in turn, in three rounds unless --rounds says otherwise; tables
show the medians of the rounds, half of their range, and how many times the first broker's a figure is.

--save keeps the result, and --baseline compares with one that was kept: the exit code is 1 if a figure is worse by more than --tolerance
(as fast as possible: messages a second, CPU and allocations of a message; by a schedule: p50 and p99), and 2 if the settings
differ. On a busy machine figures scatter: with --rounds 3 or more on both sides, figures whose ranges overlap don't fail.

--output json prints one object: "format" is stagebus-bench, "version" 1, times are in nanoseconds. "rows" has an entry for each broker, size
and load (max, half or rate), with the "median", "min" and "max" of its "rounds", and in each round the counts and the course over time.

Topics are made for each measurement and deleted after it; should the process be killed, they are called stagebus-bench.… and "topics
delete" removes them. Of a --topic that is given nothing is deleted: messages stay for its groups, and bench reads a copy of its own.
The exit code is 1 as well if a message was lost or not confirmed.`,
		Example: `  stagebus bench --broker amqp://localhost/
  stagebus bench publish --broker kafka://localhost:9092 --size 100,1KB,100KB
  stagebus bench both --rate 5000 --duration 30s
  stagebus bench --compare amqp://localhost/ kafka://localhost:9092
  stagebus bench --compare 'amqp://localhost/?queue_type=classic' 'amqp://localhost/?queue_type=quorum'
  stagebus bench --rounds 5 --save baseline.json
  stagebus bench --rounds 5 --baseline baseline.json --tolerance 20%`,
	}
	p.brokerFlags(c)
	p.benchCommonFlags(c, o)
	p.benchRun(c, o, bench.Both)
	for _, m := range []struct {
		mode        bench.Mode
		short, long string
	}{
		{bench.Publish, "Measure publishing: from the schedule to the broker's confirmation",
			"publish sends messages that nobody reads. Latency is from a message's scheduled time to the broker's confirmation."},
		{bench.Consume, "Measure reading: messages are published first",
			`consume publishes for --duration, or --count messages, and then measures how fast they are read and settled.
There are no latencies: the messages have waited.`},
		{bench.Both, "Measure publishing and reading at the same time",
			"both publishes and reads at the same time. Latency is from a message's scheduled time to its receipt."},
		{bench.Request, "Measure requests and their replies",
			`request sends requests, which --consumers responders answer with what they got. Requests and replies go through topics of
their own, with the durability that is asked for. Latency is from a request's scheduled time to the receipt of the reply.`},
	} {
		sub := &cobra.Command{
			Use: string(m.mode) + " [BROKER...]", Short: m.short,
			Long: m.long + "\n\n\"stagebus help bench\" says what is measured, and how.",
		}
		p.benchRun(sub, o, m.mode)
		c.AddCommand(sub)
	}
	return c
}

func (p *program) benchCommonFlags(c *cobra.Command, o *benchFlags) {
	f := c.PersistentFlags()
	o.given = func(name string) bool { return f.Changed(name) }
	f.StringVar(&o.sizes, "size", "1KB", "`sizes` of bodies, each measured by itself: 100, 1KB (1,000 bytes), 64KiB; with commas")
	f.StringVar(&o.rate, "rate", "0", "messages a second of all producers together, such as 500 or 20k; 0: as fast as possible, then half of that")
	f.DurationVarP(&o.s.Duration, "duration", "d", o.s.Duration, "how long to send after the warm-up (default: no limit with --count)")
	f.Lookup("duration").DefValue = "5s"
	f.Int64VarP(&o.s.Count, "count", "n", 0, "how many messages to send after the warm-up")
	f.DurationVar(&o.s.Warmup, "warmup", o.s.Warmup, "how long to send before anything is measured")
	f.IntVar(&o.s.Producers, "producers", o.s.Producers, "producers")
	f.IntVar(&o.s.Consumers, "consumers", o.s.Consumers, "consumers of one group, or responders")
	f.IntVar(&o.s.Batch, "batch", o.s.Batch, "messages given to a producer, or taken from a consumer, at once; a schedule gives what is due")
	f.IntVar(&o.s.Keys, "keys", o.s.Keys, "how many different keys messages have; 0: none, and no order to check")
	f.IntVar(&o.s.Parts, "partitions", o.s.Parts, "partitions of the topics that are made, on brokers that have partitions")
	f.IntVar(&o.s.Window, "window", 0, "messages that a producer has on their way to the broker; 0: the default of producers")
	f.IntVar(&o.s.Prefetch, "prefetch", 0, "messages that a consumer is given ahead; 0: the default of consumers")
	f.IntVar(&o.s.InFlight, "in-flight", 0, "messages sent and not received yet, as fast as possible; 0: 65,536, at most 64 MiB, or 100 requests")
	f.Var(&choice{(*string)(&o.s.Durability), []string{string(bench.Safe), string(bench.Unsafe)}}, "durability",
		"safe, or unsafe: a confirmed message may be lost (Kafka: acks=1; RabbitMQ: transient messages, classic queues)")
	f.IntVar(&o.s.Rounds, "rounds", o.s.Rounds, "how often to measure; tables show medians (default with --compare: 3)")
	f.Lookup("rounds").DefValue = "1"
	f.StringVarP(&o.s.Topic, "topic", "t", "", "`topic` that exists, to use instead of new ones")
	f.BoolVar(&o.compare, "compare", false, "measure the brokers that are the arguments, URLs or contexts, side by side")
	f.BoolVar(&o.plot, "plot", false, "draw messages a second, or p99, over time (default: if standard output is a terminal)")
	f.StringVar(&o.save, "save", "", "write the result as JSON to `file`")
	f.StringVar(&o.baseline, "baseline", "", "compare with the result in `file`, and fail if a figure is worse")
	f.StringVar(&o.tolerance, "tolerance", "20%", "how much worse than the baseline's a figure may be")
}

func (p *program) benchRun(c *cobra.Command, o *benchFlags, m bench.Mode) {
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case o.compare && len(args) < 2:
			return &argsError{fmt.Sprintf("--compare needs two brokers or more as arguments, URLs or contexts, and got %d", len(args))}
		case o.compare && (o.given("broker") || o.given("context")):
			return &argsError{"both --broker or --context and --compare: give all brokers as arguments of --compare"}
		case !o.compare && len(args) > 0 && strings.Contains(args[0], "://"):
			return &argsError{"a URL as argument is for --compare; one broker is named by --broker"}
		case !o.compare:
			return noSuchCommand(c, args)
		}
		return nil
	}
	c.RunE = p.does(func(ctx context.Context, args []string) error {
		o.s.Mode = m
		return p.bench(ctx, o, args)
	})
}

// settings reads what flags say in their own language.
func (o *benchFlags) settings() (s bench.Settings, tolerance float64, err error) {
	s = o.s
	wrap := func(flag string, err error) error {
		if err != nil {
			err = fmt.Errorf("--%s: %w", flag, err)
		}
		return err
	}
	var errs [3]error
	s.Sizes, errs[0] = bench.ParseSizes(o.sizes)
	s.Rate, errs[1] = bench.ParseRate(o.rate)
	tolerance, errs[2] = bench.ParseTolerance(o.tolerance)
	for i, flag := range []string{"size", "rate", "tolerance"} {
		if err := wrap(flag, errs[i]); err != nil {
			return s, 0, err
		}
	}
	if o.given("count") && !o.given("duration") {
		s.Duration = 0
	}
	if o.given("duration") && s.Duration <= 0 {
		return s, 0, fmt.Errorf("--duration %v: it is positive", s.Duration)
	}
	if o.compare && !o.given("rounds") {
		s.Rounds = 3
	}
	return s, tolerance, s.Check()
}

func (p *program) bench(ctx context.Context, o *benchFlags, urls []string) (err error) {
	s, tolerance, err := o.settings()
	if err != nil {
		return &usageError{err}
	}
	var base *bench.Report
	if o.baseline != "" {
		if base, err = readBaseline(o.baseline); err != nil {
			return &usageError{err}
		}
	}
	if len(urls) == 0 {
		urls = []string{""}
	}
	p.bare = true // what is counted for each message would be measured too
	var targets []*bench.Target
	timeout, said := p.connectTimeout, p.said["connect-timeout"]
	for _, raw := range urls {
		p.connectTimeout, p.said["connect-timeout"] = timeout, said // that of a context is for its own broker
		switch {
		case strings.Contains(raw, "://"):
			p.broker, p.context = raw, ""
		case raw != "":
			p.broker, p.context = "", raw
		}
		if raw, err = p.address(); err != nil {
			return err
		}
		b, err := p.connect(ctx, raw)
		if err != nil {
			return err
		}
		defer func(b *stagebus.Broker) { shut(b, &err) }(b)
		t, err := bench.NewTarget(raw, b)
		if err != nil {
			return &usageError{err}
		}
		targets = append(targets, t)
	}
	runner, err := bench.New(benchVersion(), targets, s)
	if err != nil {
		return &usageError{err}
	}
	r := runner.Report()
	if base != nil {
		notes, err := r.CheckBaseline(base)
		if err != nil {
			return &usageError{fmt.Errorf("--baseline %s: %w", o.baseline, err)}
		}
		for _, n := range notes {
			p.notef("%s", n)
		}
	}
	if !p.json() {
		if err := r.WriteSettings(p.out); err != nil {
			return outputError(err)
		}
	}
	watch, end := p.benchProgress()
	failure := runner.Run(ctx, watch)
	end()
	return errors.Join(failure, p.benchResult(o, r, base, tolerance))
}

// benchResult prints a result, keeps it, and says what is wrong with it.
func (p *program) benchResult(o *benchFlags, r, base *bench.Report, tolerance float64) error {
	var out bytes.Buffer
	switch {
	case p.json():
		if err := r.WriteJSON(&out); err != nil {
			return err
		}
	case len(r.Rows) > 0:
		if err := r.WriteTable(&out); err != nil {
			return err
		}
		if o.plot || !o.given("plot") && p.terminal(p.out) {
			if err := r.WritePlot(&out); err != nil {
				return err
			}
		}
	}
	_, err := p.out.Write(out.Bytes())
	err = outputError(err)
	if r.Interrupted {
		return err // the rest has its error; a part of a result is no baseline and has none
	}
	return errors.Join(err, p.benchVerdict(o, r, base, tolerance)) // what was measured is kept and judged also if nobody reads it
}

// benchVerdict keeps a result, and says what is wrong with it.
func (p *program) benchVerdict(o *benchFlags, r, base *bench.Report, tolerance float64) error {
	if o.save != "" {
		if err := saveReport(o.save, r); err != nil {
			return err
		}
		p.notef("saved to %s", o.save)
	}
	if n := r.Lost(); n > 0 {
		return fmt.Errorf("lost %s that the broker had confirmed", plural(int(n), "message"))
	}
	if n, first := r.Failed(); n > 0 {
		return fmt.Errorf("%s not confirmed: %s", plural(int(n), "message"), first)
	}
	if base == nil {
		return nil
	}
	worse, notes := r.Compare(base, tolerance)
	for _, n := range notes {
		p.notef("%s", n)
	}
	for _, line := range worse {
		if p.json() {
			p.sayJSON(map[string]string{"regression": line})
		} else {
			p.say(line)
		}
	}
	if len(worse) > 0 {
		return fmt.Errorf("%s than the baseline %s", plural(len(worse), "figure")+" worse", o.baseline)
	}
	p.notef("no figure is more than %.0f%% worse than the baseline", tolerance*100)
	return nil
}

// benchProgress returns what shows where a run is: a line that is written over at a terminal, a line for each measurement elsewhere.
func (p *program) benchProgress() (watch func(bench.Progress), end func()) {
	if p.quiet {
		return func(bench.Progress) {}, func() {}
	}
	w, ok := p.err.(*syncWriter)
	if !ok || !p.terminal(p.err) || p.getenv("TERM") == "dumb" || p.json() {
		last := 0
		return func(g bench.Progress) {
			if g.Step != last {
				last = g.Step
				p.notef("%d of %d: %s, %s", g.Step, g.Steps, g.Broker, g.What)
			}
		}, func() {}
	}
	return func(g bench.Progress) {
		line := fmt.Sprintf("%d of %d, %s messages", g.Step, g.Steps, grouped(g.Messages))
		if g.Total > 0 {
			line += fmt.Sprintf(", %v of %v", g.Elapsed.Round(100*time.Millisecond), g.Total)
		}
		line += fmt.Sprintf(": %s, %s", g.Broker, g.What) // the end may not fit
		w.status(cut(oneLine(line), width(w.w)))
	}, func() { w.status("") }
}

func readBaseline(name string) (*bench.Report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--baseline: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	r, err := bench.ReadReport(f)
	if err != nil {
		return nil, fmt.Errorf("--baseline %s: %w", name, err)
	}
	return r, nil
}

// saveReport writes beside the file first: a baseline is kept until there is a whole new one. What isn't a file, /dev/null for example, is
// not replaced by one, and a symbolic link stays one.
func saveReport(name string, r *bench.Report) error {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("--save %s: it isn't a file", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".stagebus-bench-*")
	if err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // renamed, or left over
	err = errors.Join(r.WriteJSON(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("--save %s: %w", name, err)
	}
	return nil
}

// benchVersion is this program's version, without what the report says elsewhere.
func benchVersion() string {
	info, _ := debug.ReadBuildInfo()
	fields := strings.Fields(version(info))
	for i, f := range fields {
		if i > 0 && strings.HasPrefix(f, "go1") {
			fields = fields[:i]
			break
		}
	}
	return strings.Join(fields[1:], " ")
}
