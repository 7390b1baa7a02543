package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
)

type publishFlags struct {
	topic     string
	key       string
	headers   []string
	attrs     stagebus.Message // the attributes that are strings, and the priority
	deadline  string
	partition int32
	files     []string
	jsonl     bool
	count     int
	create    bool
	stamp     bool
	maxBytes  int
	timeout   time.Duration
	resend    time.Duration
	given     func(flag string) bool
}

func (p *program) publishCommand() *cobra.Command {
	var o publishFlags
	c := &cobra.Command{
		Use:   "publish [BODY | -]",
		Short: "Publish messages",
		Long: `publish sends the argument as one message. Without one it reads standard input, each line a message (a last
line without a line feed counts too), and sends lines as they come; a terminal is read only if the argument is "-".
With --file each file is one message. With --jsonl, standard input or the files hold records, one a line, as
"consume --format json" prints them. Flags beat what a record says, and --header adds to it.

A message is what was typed, nothing more: no id, no time, no content type, unless a flag asks for it.
Messages are sent in the order of the input and each is confirmed by the broker; brokers keep the order of a key. At the first that fails nothing more
is read; the exit code is 1, and the error says where in the input it was and how many were published: all before a
line that can't be sent and none after it; what was on its way when the broker refused a message may be among them.
With --resend, a lost connection isn't a failure: what it stopped is sent again for up to that time, with the same id, by which a receiver
can tell a copy (--resend implies --stamp). Messages that were on their way together may then change their order.
An interrupt ends the input: what was read is published. That is success for standard input, a failure for the rest.`,
		Example: `  stagebus publish --topic prompts '{"id": 1, "text": "Hello World"}'
  tail -f events.log | stagebus publish --topic events
  stagebus publish --topic documents --content-type application/pdf --file a.pdf --file b.pdf
  stagebus consume --topic a --format json | stagebus publish --jsonl --topic b`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &argsError{fmt.Sprintf("%d arguments, and the body is one: quote it if it has spaces, and give the topic with --topic", len(args))}
			}
			return nil
		},
	}
	p.brokerFlags(c)
	p.progressFlag(c)
	f := c.Flags()
	o.given = func(name string) bool { return f.Changed(name) }
	f.StringVarP(&o.topic, "topic", "t", "", "`topic` to publish to (not needed if every record has one)")
	f.StringVarP(&o.key, "key", "k", "", "key: messages with the same one keep their order")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "header as `name=value` or \"name: value\"; may be repeated")
	f.StringVar(&o.attrs.ContentType, "content-type", "", "media type of the body")
	f.StringVar(&o.attrs.ContentEncoding, "content-encoding", "", "what was done to the body, such as gzip")
	f.StringVar(&o.attrs.ID, "id", "", "id of the message")
	f.StringVar(&o.attrs.Source, "source", "", "who made the message")
	f.StringVar(&o.attrs.Type, "type", "", "what the message means")
	f.StringVar(&o.attrs.Subject, "subject", "", "what the message is about")
	f.StringVar(&o.attrs.CorrelationID, "correlation-id", "", "which request or flow the message belongs to")
	f.StringVar(&o.attrs.ReplyTo, "reply-to", "", "topic for replies")
	f.StringVar(&o.attrs.Audience, "audience", "", "logical destination")
	f.StringVar(&o.deadline, "deadline", "", "when the message loses its use: `time` (RFC 3339), or how long from now, such as 10s")
	f.Uint8Var(&o.attrs.Priority, "priority", 0, "priority, for RabbitMQ queues made for it")
	f.Int32Var(&o.partition, "partition", -1, "partition, from 0 (default: by key)")
	f.Lookup("partition").DefValue = "0" // not shown
	f.BoolVar(&o.stamp, "stamp", false, "give messages without id or time a new id and the time")
	f.StringArrayVarP(&o.files, "file", "f", nil, "`file` with one message, or with records; may be repeated")
	f.BoolVar(&o.jsonl, "jsonl", false, "the input is records in JSON, one a line")
	f.IntVarP(&o.count, "count", "n", 1, "send every message that often")
	f.BoolVar(&o.create, "create", false, "declare the topic if it doesn't exist")
	f.IntVar(&o.maxBytes, "max-bytes", 128<<20, "the longest line or file")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long the broker may take to confirm a message")
	f.DurationVar(&o.resend, "resend", 0, "how long to go on through an outage of the broker, such as 60s (default: not at all)")
	c.RunE = p.does(func(ctx context.Context, args []string) error { return p.publish(ctx, &o, args) })
	return c
}

func (p *program) publish(ctx context.Context, o *publishFlags, args []string) (err error) {
	fill, err := o.filler()
	if err != nil {
		return &usageError{err}
	}
	in, stream, err := p.input(o, args)
	if err != nil {
		return err
	}
	b, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer shut(b, &err)
	producer, err := b.Producer(ctx, stagebus.ProducerOptions{Timeout: o.timeout, Create: o.create})
	if err != nil {
		return err
	}
	p.flow()
	s := newSender(producer)
	s.patience, s.note = o.resend, p.notef
	stop := p.showProgress("published", !stream || !isTerminal(p.in), func() advance {
		a := advance{messages: s.soFar()}
		if a.part, a.total = in.progress(); a.total > 0 {
			a.bytes = true
		} else if _, one := in.(*single); one {
			a.part, a.total = a.messages, int64(o.count)
		}
		return a
	})
	stopped := s.run(ctx, &batcher{in: in, fill: fill, copies: o.count, stamp: o.stamp || o.resend > 0})
	stop()
	published, failure := s.result()
	switch {
	case failure != nil:
		return failure
	case stopped && !stream:
		return fmt.Errorf("%w before the end of the input; published %s", errInterrupted, plural(published, "message"))
	case p.json():
		return p.printLines(map[string]any{"published": published, "interrupted": stopped})
	case stopped:
		p.notef("published %s, %v", plural(published, "message"), errInterrupted)
	default:
		p.notef("published %s", plural(published, "message"))
	}
	return nil
}

// input is the one place that decides what is read. It never looks at standard output, nor at standard input when there is
// something else to send. stream: the input is standard input.
func (p *program) input(o *publishFlags, args []string) (in input, stream bool, err error) {
	body := ""
	if len(args) == 1 {
		body = args[0]
	}
	argument := len(args) == 1 && body != "-"
	switch {
	case len(args) == 1 && len(o.files) > 0:
		return nil, false, usage("both an argument and --file: give one of them")
	case argument && o.jsonl:
		return nil, false, usage("--jsonl reads records from standard input or from --file, not from the argument")
	case argument:
		return &single{item: item{Message: stagebus.Message{Body: []byte(body)}}}, false, nil
	case len(o.files) > 0:
		return newFiles(o.files, o.maxBytes, o.jsonl), false, nil
	case body != "-" && isTerminal(p.in):
		return nil, false, usage("nothing to publish: give the body as an argument, pipe lines into standard input, or give - to type them")
	}
	return newLines("", p.in, o.maxBytes, o.jsonl), true, nil
}

// filler checks the flags and returns what applies them to a message.
func (o *publishFlags) filler() (func(*stagebus.Message) error, error) {
	if o.topic == "" && !o.jsonl {
		return nil, errors.New("no topic: give --topic NAME")
	}
	if o.topic != "" {
		if err := stagebus.CheckTopic(o.topic); err != nil {
			return nil, err
		}
	}
	if o.count < 1 || o.maxBytes < 1 || o.timeout <= 0 || o.resend < 0 {
		return nil, errors.New("--count, --max-bytes and --timeout are at least 1, and --resend isn't negative")
	}
	headers, err := parseHeaders(o.headers)
	if err != nil {
		return nil, err
	}
	deadline, err := parseDeadline(o.deadline, time.Now())
	if err != nil {
		return nil, err
	}
	if o.given("partition") && (o.partition < 0 || o.partition == 1<<31-1) {
		return nil, fmt.Errorf("--partition %d: partitions count from 0", o.partition)
	}
	return func(m *stagebus.Message) error {
		o.apply(m)
		m.Headers = append(m.Headers, headers...)
		if !deadline.IsZero() {
			m.Deadline = deadline
		}
		if m.Topic == "" {
			return errors.New(`no topic: give --topic NAME, or "topic" in the record`)
		}
		return nil
	}, nil
}

// apply sets what flags give, and nothing else.
func (o *publishFlags) apply(m *stagebus.Message) {
	for _, f := range []struct {
		flag  string
		value *string
		to    *string
	}{
		{"topic", &o.topic, &m.Topic},
		{"content-type", &o.attrs.ContentType, &m.ContentType},
		{"content-encoding", &o.attrs.ContentEncoding, &m.ContentEncoding},
		{"id", &o.attrs.ID, &m.ID},
		{"source", &o.attrs.Source, &m.Source},
		{"type", &o.attrs.Type, &m.Type},
		{"subject", &o.attrs.Subject, &m.Subject},
		{"correlation-id", &o.attrs.CorrelationID, &m.CorrelationID},
		{"reply-to", &o.attrs.ReplyTo, &m.ReplyTo},
		{"audience", &o.attrs.Audience, &m.Audience},
	} {
		if o.given(f.flag) {
			*f.to = *f.value
		}
	}
	if o.given("key") {
		m.Key = []byte(o.key)
	}
	if o.given("priority") {
		m.Priority = o.attrs.Priority
	}
	if o.given("partition") {
		m.Partition = stagebus.At(o.partition)
	}
}

// parseHeaders takes name=value and "name: value": whichever of = and : comes first ends the name.
func parseHeaders(flags []string) (stagebus.Headers, error) {
	var hs stagebus.Headers
	for _, f := range flags {
		i := strings.IndexAny(f, "=:")
		if i < 1 {
			return nil, fmt.Errorf("--header %q: it is name=value or \"name: value\"", f)
		}
		name, value := f[:i], f[i+1:]
		if f[i] == ':' {
			value = strings.TrimPrefix(value, " ")
		}
		if stagebus.Reserved(name) {
			return nil, fmt.Errorf("--header %q: the name carries an attribute, which has its own flag", name)
		}
		hs = append(hs, stagebus.Header{Key: name, Value: value})
	}
	return hs, nil
}

func parseDeadline(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("--deadline %q: it is a time such as 2026-01-02T15:04:05Z, or a duration such as 10s", s)
	}
	return t, nil
}
