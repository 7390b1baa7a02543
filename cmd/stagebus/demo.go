package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo"
)

// demoCommand is the demo command with its flags.
type demoCommand struct {
	p *program

	stage, prefix, text, size string
	steps                     int
	seed                      uint64
	prompts                   []string
	chaos, keep, list         bool
}

func (p *program) demoCommand() *cobra.Command {
	d := &demoCommand{p: p}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run an LLM system in small whose parts only meet through topics",
		Long: `demo runs an LLM system in small, in seconds, and checks what it claims. A text (Isaac Newton's Opticks, which Go's source tree
has) is normalised, split into tokens and numbered; two workers train a small neural language model on it, each on its half of every batch;
the parameters are deployed to two inference workers; these answer prompts as streams of tokens; sentences are made of them. All of it
goes through topics and nothing else.

Without --broker it needs none: the topics are in the memory of this one process, whatever STAGEBUS_BROKER says.
With --broker or --context the same goes over RabbitMQ or Kafka, under topics of its own, which are removed at the end.
With --stage it is one of six processes that share a broker and a prefix; --list-stages shows their command lines.
--chaos kills both training workers on the way, starts them again, and compares the parameters with those of an undisturbed run.

Exit code 1 says that a claim doesn't hold.`,
		Example: `  stagebus demo
  stagebus demo --broker kafka://localhost:9092 --chaos
  stagebus demo --text book.txt --prompt "in the beginning"
  stagebus demo --broker amqp://localhost --prefix demo.1 --list-stages`,
		Args: cobra.NoArgs,
		RunE: p.does(func(ctx context.Context, _ []string) error { return d.run(ctx) }),
	}
	p.brokerFlags(c)
	c.PersistentFlags().Lookup("broker").Usage = "`URL` of the broker (default: memory; with --stage: STAGEBUS_BROKER, then the context)"
	f := c.Flags()
	f.StringVar(&d.stage, "stage", "", "run one `stage` as this process: "+strings.Join(demo.Stages, ", "))
	f.BoolVar(&d.list, "list-stages", false, "print the command lines of the six processes, and do nothing")
	f.StringVar(&d.prefix, "prefix", "", "`name` that the run's topics begin with (default: demo. and something random)")
	f.StringVar(&d.text, "text", "", "train on this `file`")
	f.StringVar(&d.size, "size", "medium", "`size` of the model: small or medium")
	f.IntVar(&d.steps, "steps", 0, "train for `N` steps (default: as many as the size needs)")
	f.Uint64Var(&d.seed, "seed", 1, "`number` that everything random depends on: the same text, size and seed give the same parameters")
	f.StringArrayVar(&d.prompts, "prompt", nil, "answer this `text`; may be repeated (default: beginnings of held-out sentences)")
	f.BoolVar(&d.chaos, "chaos", false, "kill both training workers on the way, and show that the result is the same")
	f.BoolVar(&d.keep, "keep", false, "leave the topics on the broker")
	return c
}

// check returns what is wrong with the command line.
func (d *demoCommand) check() error {
	switch {
	case d.stage != "" && !slices.Contains(demo.Stages, d.stage):
		return usage(fmt.Sprintf("--stage %q: it is one of %s", d.stage, strings.Join(demo.Stages, ", ")))
	case d.stage != "" && d.prefix == "":
		return usage("--stage needs --prefix, the same for all six processes, such as --prefix demo.1")
	case d.stage != "" && d.chaos:
		return usage("--chaos is for one process: of a run in six, kill one yourself and start it again")
	case demo.Sizes[d.size].Steps == 0:
		return usage(fmt.Sprintf("--size %q: it is small or medium", d.size))
	case d.steps < 0 || d.steps > 1_000_000:
		return usage(fmt.Sprintf("--steps %d: it is a number from 1 to 1000000", d.steps))
	case d.chaos && d.steps != 0 && d.steps < 3:
		return usage("--chaos needs at least 3 --steps: there must be something to kill in the middle of")
	case len(d.prompts) > demo.MaxPrompts:
		return usage(fmt.Sprintf("%d prompts, more than %d", len(d.prompts), demo.MaxPrompts))
	}
	for _, t := range d.prompts {
		if strings.TrimSpace(t) == "" || len(t) > demo.MaxPrompt {
			return usage(fmt.Sprintf("--prompt: a text of 1 to %d bytes", demo.MaxPrompt))
		}
	}
	if d.prefix != "" {
		if err := demo.CheckPrefix(d.prefix); err != nil {
			return usage("--prefix: " + err.Error())
		}
	}
	return nil
}

// address is the URL of the broker: one that the command line names, unless other processes must find it as well.
func (d *demoCommand) address() (string, error) {
	if d.p.broker == "" && d.p.context == "" && d.stage == "" {
		return "memory://" + d.prefix, nil
	}
	raw, err := d.p.address()
	if err != nil || !strings.HasPrefix(raw, "memory:") {
		return raw, err
	}
	if d.stage != "" {
		return "", usage("--stage needs a broker that other processes reach, such as --broker kafka://localhost:9092")
	}
	if raw == "memory://" {
		raw += d.prefix // without a name each connection would have a broker of its own
	}
	return raw, nil
}

func (d *demoCommand) run(ctx context.Context) (err error) {
	if err := d.check(); err != nil {
		return err
	}
	if d.list {
		return d.listStages()
	}
	if d.prefix == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		d.prefix = "demo." + hex.EncodeToString(b[:])
	}
	raw, err := d.address()
	if err != nil {
		return err
	}
	scheme, _, _ := strings.Cut(raw, "://")
	size := demo.Sizes[d.size]
	if d.steps > 0 {
		size.Steps = d.steps
	}
	v := newDemoView(d.p)
	defer v.close()
	o := demo.Options{
		Connect: func(ctx context.Context) (*stagebus.Broker, error) { return d.p.connect(ctx, raw) },
		Scheme:  scheme, Meter: d.p.meter, Prefix: d.prefix, Stage: d.stage, Size: size, Seed: d.seed, Prompts: d.prompts,
		Chaos: d.chaos, Keep: d.keep, Note: v.note, Progress: v.progress, CleanUp: d.p.hold,
	}
	if d.stage == "" || d.stage == demo.Stages[0] {
		if o.Text, err = d.read(); err != nil {
			return err
		}
		v.note(fmt.Sprintf("text: %s, %d bytes", o.Text.Name, len(o.Text.Body)))
	}
	d.p.flow()
	s, err := demo.Run(ctx, o)
	v.close()
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w before the end", err)
	}
	if err != nil {
		return err
	}
	if s == nil { // another process shows it
		v.note(d.stage + " has ended with the run")
		return nil
	}
	if err := d.print(s); err != nil {
		return err
	}
	if broken := s.Broken(); len(broken) > 0 {
		var errs []error
		for _, c := range broken {
			errs = append(errs, fmt.Errorf("the claim %q does not hold: %s", c.Name, c.Detail))
		}
		return errors.Join(errs...)
	}
	return nil
}

func (d *demoCommand) read() (demo.Text, error) {
	if d.text == "" {
		return demo.FindText(), nil
	}
	t, err := demo.ReadText(d.text)
	if err != nil {
		return t, usage("--text: " + err.Error())
	}
	return t, nil
}

// listStages prints command lines for a shell. The broker is in the environment, where its password isn't shown by ps.
func (d *demoCommand) listStages() error {
	prefix := d.prefix
	if prefix == "" {
		prefix = "demo.1"
	}
	var b strings.Builder
	b.WriteString("# each in a shell of its own, in any order; the last one shows the result\n")
	b.WriteString("export STAGEBUS_BROKER=kafka://localhost:9092   # or amqp://guest:guest@localhost:5672/\n")
	for _, s := range demo.Stages {
		fmt.Fprintf(&b, "stagebus demo --prefix %s --stage %s", prefix, s)
		if s == demo.Stages[0] {
			b.WriteString(d.textFlags())
		}
		b.WriteString("\n")
	}
	return d.p.write(b.String())
}

// textFlags are the flags that only the first stage needs: all others learn it from messages.
func (d *demoCommand) textFlags() string {
	s := ""
	if d.text != "" {
		s += " --text " + shellQuote(d.text)
	}
	if d.size != "medium" {
		s += " --size " + d.size
	}
	if d.steps > 0 {
		s += fmt.Sprintf(" --steps %d", d.steps)
	}
	if d.seed != 1 {
		s += fmt.Sprintf(" --seed %d", d.seed)
	}
	for _, t := range d.prompts {
		s += " --prompt " + shellQuote(t)
	}
	return s
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
