package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
)

type consumeFlags struct {
	topics   []string
	group    string
	count    int
	from     string
	follow   bool
	format   string
	template string
	create   bool
	timeout  time.Duration
	idle     time.Duration
}

func (p *program) consumeCommand() *cobra.Command {
	var o consumeFlags
	c := &cobra.Command{
		Use:   "consume",
		Short: "Print messages",
		Long: `consume prints the messages of topics up to the last one that is there now, or as they come with --follow.

A message is settled (committed, acknowledged) only after it has been printed; if standard output is a pipe, after its
reader has taken it. So "consume | head -1" takes one message, and the others stay; that is success.

Who gets the messages is the group's business: the members of one group share them, each group gets all.
Without --group:
  Kafka, memory   all partitions are read from --from (the earliest), in no group. Nothing is committed: the next
                  run prints the same again.
  RabbitMQ        there is no other way to look at a queue than to consume it: the messages of the default group's
                  queue are printed and removed. A queue of the topic's name that others declared is that queue.
  --from latest   a private copy of what is sent from now on, on every broker. It leaves nothing behind.
With --group, --from says where a new group begins; RabbitMQ keeps no history: a new group begins empty.

Where the end is: on Kafka and memory, the last message of each partition when the command started; on RabbitMQ, as many
messages as were queued then. When nothing comes for --idle, that is the end too.

Formats:
  raw        the body and a line feed. A tombstone is an empty line. On a terminal, a body that isn't text is only
             described, unless --format raw is given.
  json       one record a line, with all of the message. "publish --jsonl" reads it back without loss:
             body (a string, null for a tombstone) or body_base64, key or key_base64, headers as [[name, value], ...],
             the attributes, position, attempt.
  template   --template, in the language of Go's text/template, and a line feed. Fields: Topic Partition Offset Key Body
             Headers Time ID Source Type Subject ContentType ContentEncoding CorrelationID ReplyTo Audience Deadline
             Priority Attempt Redelivered Error. Functions: header "name", json, base64.`,
		Example: `  stagebus consume --topic prompts --group trainer --follow --format json
  stagebus consume --topic prompts -n 1
  stagebus consume --topic prompts --from 1h --format template --template '{{.Offset}} {{.Key}} {{.Body}}'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &argsError{fmt.Sprintf("%q: topics are given with --topic: stagebus consume --topic %s", args[0], args[0])}
			}
			return nil
		},
	}
	p.brokerFlags(c)
	p.progressFlag(c)
	f := c.Flags()
	f.StringArrayVarP(&o.topics, "topic", "t", nil, "`topic` to consume; may be repeated")
	f.StringVarP(&o.group, "group", "g", "", "consumer group; what it means to have none is said above")
	f.IntVarP(&o.count, "count", "n", 0, "stop after that many messages; exit code 3 if the end comes before")
	f.StringVar(&o.from, "from", "", "earliest, latest, an offset, a `time` (RFC 3339 or 2026-01-02), or how long ago (1h)")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on at the end and wait for new messages")
	f.Var(&choice{&o.format, []string{"raw", "json", "template"}}, "format", "`format`: raw, json or template (default: raw, or json with --output json)")
	f.StringVar(&o.template, "template", "", "template for --format template")
	f.BoolVar(&o.create, "create", false, "declare topics that don't exist")
	f.DurationVar(&o.timeout, "timeout", 0, "stop after that time; exit code 3 if --count was not reached (default: never)")
	f.DurationVar(&o.idle, "idle", 0, "without --follow, stop when nothing came for that long (default: 1s on RabbitMQ, else 5s)")
	c.RunE = p.does(func(ctx context.Context, _ []string) error { return p.consume(ctx, &o) })
	return c
}

func (p *program) consume(ctx context.Context, o *consumeFlags) error {
	start, err := o.check()
	if err != nil {
		return &usageError{err}
	}
	format, err := o.formatter(p.terminal(p.out), p.json())
	if err != nil {
		return &usageError{err}
	}
	r := &reader{warn: p.notef, refused: p.refused, limit: o.count}
	err = p.read(ctx, o, start, format, r)
	if r.stale > 0 {
		p.notef("%s will come again: another member of the group took over before the settlement", plural(r.stale, "printed message"))
	}
	if errors.Is(err, errInterrupted) && o.follow && o.count == 0 {
		p.notef("consumed %s, %v", plural(r.n, "message"), errInterrupted)
		err = nil // there is no other end
	}
	return r.verdict(err)
}

// read opens what r needs and has it read.
func (p *program) read(ctx context.Context, o *consumeFlags, start stagebus.Start, format formatter, r *reader) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	b, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer shut(b, &err)

	caps := b.Capabilities()
	if o.from != "" && start.Kind != stagebus.StartLatest && !caps.Replay {
		return fmt.Errorf("--from %s: %w: this broker keeps no history, a queue is read from its front; leave --from out", o.from, stagebus.ErrUnsupported)
	}
	opts, note := o.options(caps, start)
	r.end, err = o.end(ctx, b, opts, caps)
	if err == nil {
		r.c, err = b.Consumer(ctx, opts)
	}
	if err != nil {
		if errors.Is(err, stagebus.ErrInvalid) {
			err = &usageError{err}
		}
		return err
	}
	if note != "" {
		p.notef("%s", note)
	}
	p.flow()
	r.out = newPrinter(p.out, format, opts.Mode == stagebus.Shared)
	r.dst = make([]stagebus.Delivery, opts.Prefetch)
	total := r.end.expected(opts)
	if limit := int64(r.limit); limit > 0 && (total == 0 || limit < total) {
		total = limit
	}
	// Where messages show, nothing is to be drawn among them.
	defer p.showProgress("consumed", !p.terminal(p.out), func() advance {
		n := r.printed.Load()
		return advance{messages: n, part: n, total: total}
	})()
	err = r.run(ctx, o.timeout)
	return errors.Join(err, r.close())
}

// check finds what is wrong with the flags, and returns --from.
func (o *consumeFlags) check() (stagebus.Start, error) {
	var start stagebus.Start
	if len(o.topics) == 0 {
		return start, errors.New("no topic: give --topic NAME")
	}
	for _, t := range o.topics {
		if err := stagebus.CheckTopic(t); err != nil {
			return start, err
		}
	}
	if err := stagebus.CheckGroup(o.group); err != nil {
		return start, err
	}
	if o.count < 0 || o.timeout < 0 || o.idle < 0 {
		return start, errors.New("--count, --timeout and --idle can't be negative")
	}
	start, err := parseFrom(o.from, time.Now())
	if err != nil {
		return start, err
	}
	if start.Kind == stagebus.StartLatest && !o.follow {
		return start, errors.New("--from latest is where the end is: add --follow to wait for new messages")
	}
	return start, nil
}

func parseFrom(s string, now time.Time) (stagebus.Start, error) {
	switch s {
	case "":
		return stagebus.Start{}, nil
	case "earliest":
		return stagebus.Start{Kind: stagebus.StartEarliest}, nil
	case "latest":
		return stagebus.Start{Kind: stagebus.StartLatest}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return stagebus.Start{Kind: stagebus.StartOffset, Offset: n}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return stagebus.Start{Kind: stagebus.StartTime, Time: now.Add(-d)}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return stagebus.Start{Kind: stagebus.StartTime, Time: t}, nil
		}
	}
	return stagebus.Start{}, fmt.Errorf("--from %q: it is earliest, latest, an offset, a time such as 2026-01-02T15:04:05Z, or how long ago, such as 1h", s)
}

// options decides how to read, and what to say about it when there is no group.
func (o *consumeFlags) options(caps stagebus.Capabilities, start stagebus.Start) (opts stagebus.ConsumerOptions, note string) {
	opts = stagebus.ConsumerOptions{Topics: o.topics, Group: o.group, Start: start, Create: o.create, Prefetch: 256}
	if o.count > 0 {
		// What is received and not printed is given back, which brokers count as a delivery: better not to have it.
		opts.Prefetch = min(opts.Prefetch, o.count)
	}
	switch {
	case o.group != "":
	case start.Kind == stagebus.StartLatest:
		opts.Mode, opts.Start = stagebus.Ephemeral, stagebus.Start{}
		note = "no --group: printing a private copy of what is sent from now on"
	case caps.Replay && caps.Partitions:
		opts.Mode = stagebus.Assigned
		note = "no --group: reading all partitions, nothing is committed"
	default:
		note = fmt.Sprintf("no --group: messages of the group %q are removed from its queue once printed", stagebus.DefaultGroup)
	}
	return opts, note
}

// end finds where to stop; nil is nowhere.
func (o *consumeFlags) end(ctx context.Context, b *stagebus.Broker, opts stagebus.ConsumerOptions, caps stagebus.Capabilities) (*end, error) {
	if o.follow {
		return nil, nil //nolint:nilnil // no end
	}
	e := &end{log: caps.Offsets, idle: o.idle}
	if e.idle == 0 {
		e.idle = time.Second
		if caps.Offsets { // joining a group and the first fetch may take longer
			e.idle = 5 * time.Second
		}
	}
	return e, e.look(ctx, b.Admin(), opts)
}
