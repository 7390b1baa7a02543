package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/doctor"
)

type doctorFlags struct {
	doctor.Options
	brokers []string
	wait    time.Duration
}

func (p *program) doctorCommand() *cobra.Command {
	var o doctorFlags
	c := &cobra.Command{
		Use:   "doctor [URL]...",
		Short: "Find out why a broker can't be used, or that it can",
		Long: `doctor goes the way that a message goes and says where it ends: the host's name, TCP, TLS (the certificate's name, trust,
expiry), the greeting, the login, on Kafka every address that the cluster sends its clients to, then a topic of its own,
messages there and back through it, and the clocks. Under each failure stand its cause and the line to change. The topic,
and all else that it makes, is deleted again; on Kafka that includes a consumer group of the same name.

With --wait it looks again and again until nothing fails, for scripts that have just started a broker; what waiting can't
mend, such as a wrong password, ends it at once. Several brokers are looked at one after the other.

Exit codes: 0 nothing failed (there may be warnings); 1 something failed; 2 the command line is wrong.
With --output json, one object: {"ok": …, "brokers": [{"broker", "status", "steps": [{"name", "target", "status", "ms",
"detail", "cause", "do"}]}]}, where a status is ok, warn, fail or skip.`,
		Example: `  stagebus doctor --broker kafka://localhost:9092
  stagebus doctor --wait 60s amqp://localhost:5672/ kafka://localhost:9092`,
	}
	f := c.Flags()
	f.StringArrayVar(&o.brokers, "broker", nil, "`URL` of the broker (default: STAGEBUS_BROKER, then the context); may be repeated")
	f.StringVar(&p.context, "context", "", "`name` of the context to use (default: STAGEBUS_CONTEXT, then the current one)")
	f.DurationVar(&o.wait, "wait", 0, "how long to look again while what fails may mend, such as 60s")
	f.DurationVar(&o.Timeout, "timeout", 5*time.Second, "time-out of each step; the round trip has three times as long")
	f.IntVar(&o.Messages, "messages", 10, "how many messages make the round trip")
	f.BoolVar(&o.ReadOnly, "read-only", false, "make nothing on the broker: no topic, no round trip")
	f.StringVar(&o.Prefix, "prefix", "stagebus.doctor", "how the names of what is made begin, for brokers that give rights by name")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing on standard error but errors")
	c.RunE = p.does(func(ctx context.Context, args []string) error { return p.doctor(ctx, &o, args) })
	return c
}

func (p *program) doctor(ctx context.Context, o *doctorFlags, args []string) error {
	switch {
	case o.wait < 0, o.Timeout <= 0:
		return usage("--wait and --timeout are durations such as 60s, not negative")
	case o.Messages <= 0:
		return usage("--messages counts from 1")
	case stagebus.CheckTopic(o.Prefix) != nil || strings.Contains(o.Prefix, ":"):
		return usage(fmt.Sprintf("--prefix %q: it is the beginning of a topic's name, such as stagebus.doctor", o.Prefix))
	}
	urls := append(args, o.brokers...)
	switch {
	case len(urls) > 0 && p.context != "":
		return usage("both a URL and --context: give one of them")
	case len(urls) == 0:
		u, err := p.address()
		if err != nil {
			return err
		}
		urls = []string{u}
	}
	var patients []*doctor.Patient
	for _, u := range urls {
		patient, err := doctor.Parse(u)
		if err != nil {
			return &usageError{err}
		}
		patients = append(patients, patient)
	}
	var failures []string
	var unread error // the report: what failed is an error all the same
	result := doctorResult{OK: true, Brokers: []doctor.Record{}}
	until := time.Now().Add(o.wait) // for all of them together
	for _, patient := range patients {
		r := p.examine(ctx, patient, o, time.Until(until))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, s := range r.Failed() {
			failures = append(failures, s.Name+" at "+r.Broker+": "+s.Cause)
		}
		result.Brokers = append(result.Brokers, r.Record())
		if !p.json() && unread == nil {
			unread = p.write(r.Text(doctor.Style{UTF8: p.utf8(), Colour: p.colour(p.out)}))
		}
	}
	if p.json() {
		result.OK = len(failures) == 0
		b, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			return err
		}
		unread = p.write(string(b) + "\n")
	}
	if len(failures) > 0 {
		return errors.Join(unread, errors.New("failed: "+strings.Join(failures, ", ")))
	}
	return unread
}

type doctorResult struct {
	OK      bool            `json:"ok"`
	Brokers []doctor.Record `json:"brokers"`
}

func (p *program) examine(ctx context.Context, patient *doctor.Patient, o *doctorFlags, wait time.Duration) doctor.Report {
	if o.wait == 0 {
		return doctor.Check(ctx, patient, o.Options)
	}
	return doctor.Wait(ctx, patient, o.Options, wait, func(s doctor.Step) {
		p.notef("waiting for %s: %s", patient, s.Cause)
	})
}

var utf8Locale = regexp.MustCompile(`(?i)utf-?8`)

// utf8 tells whether the user's terminal knows more than ASCII, by the variables that say so, the strongest first.
func (p *program) utf8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := p.getenv(name); v != "" {
			return utf8Locale.MatchString(v)
		}
	}
	return false
}
