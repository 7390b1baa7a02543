// Package doctor finds out why a program can't use a broker, or that it can. It goes the way that a message goes (the host's name,
// TCP, TLS, the greeting, the login, the addresses that the broker sends its clients to, the right to declare, a message there and
// back, the clocks) and says at the first thing that is wrong what the cause is and which line to change.
//
// It takes its options from the adapters' own ParseURL and sends its messages through the adapters; what they hide, such as a
// certificate that isn't trusted, it looks at with connections of its own. It never sends a password over a TLS connection that it
// couldn't verify, and shows none.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
)

// Options say how a broker is looked at. The zero value is usable.
type Options struct {
	// Timeout bounds each step: 5 s. The round trip, which is several exchanges, gets three times as long.
	Timeout time.Duration
	// ReadOnly leaves out what makes something on the broker: declare and round trip.
	ReadOnly bool
	// Messages is how many messages make the round trip, one after the other: 10.
	Messages int
	// Prefix begins the names of what is made on the broker, and deleted again: "stagebus.doctor". It is for brokers that give rights by name.
	Prefix string

	world world
}

// world is the network and the clock. Tests replace parts of it: a wrong address is hard to come by on one machine.
type world struct {
	lookup func(ctx context.Context, host string) ([]string, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	now    func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Messages <= 0 {
		o.Messages = 10
	}
	if o.Prefix == "" {
		o.Prefix = "stagebus.doctor"
	}
	if o.world.lookup == nil {
		o.world.lookup = net.DefaultResolver.LookupHost
	}
	if o.world.dial == nil {
		o.world.dial = new(net.Dialer).DialContext
	}
	if o.world.now == nil {
		o.world.now = time.Now
	}
	return o
}

// The names of the steps, in the order in which they are taken. Not every broker has all of them.
const (
	stepResolve   = "resolve"
	stepTCP       = "tcp"
	stepTLS       = "tls"
	stepVersion   = "version"
	stepLogin     = "login"
	stepListener  = "listener"
	stepDeclare   = "declare"
	stepRoundTrip = "round trip"
	stepClock     = "clock"
	stepCleanUp   = "clean up" // only where it goes wrong
)

// Patient is a broker whose URL has been read.
type Patient struct {
	url   *url.URL
	name  string // the URL without credentials and parameters
	amqp  *amqp.Options
	kafka *kafka.Options
}

// Parse reads a broker's URL as adapters.Open does. Errors are [stagebus.ErrInvalid] and show no password.
func Parse(rawURL string) (*Patient, error) {
	u, err := adapters.ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	p := &Patient{url: u, name: u.Scheme + "://" + u.Host + u.EscapedPath()}
	switch u.Scheme {
	case "amqp", "amqps":
		o, err := amqp.ParseURL(u)
		if err != nil {
			return nil, err
		}
		if o, err = o.Effective(); err != nil {
			return nil, err
		}
		p.amqp = &o
	case "kafka", "kafkas":
		o, err := kafka.ParseURL(u)
		if err != nil {
			return nil, err
		}
		p.kafka = &o
	}
	return p, nil
}

// String is the URL without credentials.
func (p *Patient) String() string { return p.name }

// Check looks at a broker once. Every step has a time-out of its own; the end of ctx ends the whole, and what was not reached is skipped.
// It may be called concurrently.
func Check(ctx context.Context, p *Patient, o Options) Report {
	x := &exam{Options: o.withDefaults(), patient: p, report: Report{Broker: p.name}}
	x.name = x.Prefix + "." + random()
	switch {
	case p.amqp != nil:
		x.checkAMQP(ctx)
	case p.kafka != nil:
		x.checkKafka(ctx)
	default:
		x.trial(ctx, trial{})
	}
	return x.report
}

// exam is one look at one broker.
type exam struct {
	Options
	patient *Patient
	report  Report
	name    string   // of what is made on the broker
	working []string // addresses of the URL that work
}

// step takes one step and notes it. It returns whether to go on.
func (x *exam) step(ctx context.Context, name, target string, f func(context.Context) finding) bool {
	return x.longStep(ctx, x.Timeout, name, target, f)
}

func (x *exam) longStep(ctx context.Context, timeout time.Duration, name, target string, f func(context.Context) finding) bool {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	got := f(within)
	took := time.Since(began)
	if ctx.Err() != nil && got.status != OK {
		got = finding{status: Fail, cause: "stopped", heals: true}
	}
	x.note(name, target, took, got)
	return got.status != Fail
}

func (x *exam) note(name, target string, took time.Duration, f finding) {
	if f.step != "" {
		name = f.step
	}
	x.report.Steps = append(x.report.Steps, Step{
		Name: name, Target: target, Status: f.status, Took: took, Detail: f.detail, Cause: f.cause, Do: f.do, heals: f.heals,
	})
}

// skip notes the steps that are not taken.
func (x *exam) skip(why string, names ...string) {
	for _, name := range names {
		x.note(name, "", 0, finding{status: Skip, detail: why})
	}
}

const notReached = "not reached"

// skipRest notes as not reached those of names for which nothing is noted yet.
func (x *exam) skipRest(names ...string) {
	for _, name := range names {
		if !slices.ContainsFunc(x.report.Steps, func(s Step) bool { return s.Name == name }) {
			x.skip(notReached, name)
		}
	}
}

// each looks at all addresses of the URL. One that works is enough for a client: then what is wrong with others is a warning.
func (x *exam) each(addresses []string, look func(address string) bool) bool {
	from := len(x.report.Steps)
	for _, a := range addresses {
		if look(a) {
			x.working = append(x.working, a)
		}
	}
	works := len(x.working) > 0
	for i := from; works && i < len(x.report.Steps); i++ {
		if s := &x.report.Steps[i]; s.Status == Fail {
			s.Status = Warn
			s.Cause += "; another address of the URL works"
		}
	}
	return works
}

func random() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// list joins words as a person would: "a, b and c".
func list(words []string, last string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
	return strings.Join(words, "")
}
