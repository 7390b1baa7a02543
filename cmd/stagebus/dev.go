package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/dev"
)

// What the first line of dev says of what is kept.
const (
	devKeeps  = "keeps what it acknowledged over a kill and restart; when the machine itself stops, the last seconds may be lost"
	devMemory = "keeps everything in memory: all of it is lost when this process ends"
)

type devFlags struct {
	listen     string
	advertise  string
	dir        string
	ephemeral  bool
	partitions int
	autoCreate bool
	topics     []string
	maxBytes   string
	verbose    bool
}

func (p *program) devCommand() *cobra.Command {
	var o devFlags
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a Kafka-protocol broker for development",
		Long: `dev is a broker for development, not for production: one process that speaks Kafka's protocol, for this command, the
library and any client of Kafka. It has no replicas, no passwords and no encryption, and runs until it is interrupted.

Messages, topics, committed offsets and what idempotent producers have sent are with the operating system before a client gets
its acknowledgement: they survive the end of this process, also by kill -9. They are not forced to the disk, so that
when the machine itself stops, the last seconds may be lost. A transaction that is open at a kill is aborted; one that is just
being committed may be so in some of its partitions only. With --ephemeral all is in memory and lost at the end.

Topics keep everything until --max-bytes; then the oldest messages of the largest partitions go, by whole segments on the disk.
Topics' own retention and compaction settings are stored and not applied.

The directory is by default $XDG_STATE_HOME/stagebus/dev or ~/.local/state/stagebus/dev, on Windows %LocalAppData%\stagebus\dev.
One process uses it at a time. To begin anew, delete it.`,
		Example: `  stagebus dev
  stagebus dev --ephemeral --listen 127.0.0.1:0 --output json
  stagebus dev --topic prompts:3 --topic results --auto-create=false
  stagebus dev --listen 0.0.0.0:9092 --advertise devbox.example:9092`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:9092", "`address` to listen on; port 0 takes a free one")
	f.StringVar(&o.advertise, "advertise", "", "let other machines in: the `address` by which they reach this one")
	f.StringVar(&o.dir, "dir", "", "`directory` to keep everything in (default: see above)")
	f.BoolVar(&o.ephemeral, "ephemeral", false, "keep everything in memory")
	f.IntVar(&o.partitions, "partitions", 1, "partitions of topics that don't say how many they want")
	f.BoolVar(&o.autoCreate, "auto-create", true, "make topics that a client asks for, if it allows that, as most but this command do")
	f.StringArrayVarP(&o.topics, "topic", "t", nil, "`name[:partitions]` of a topic to make if it doesn't exist; may be repeated")
	f.StringVar(&o.maxBytes, "max-bytes", "1GiB", "`size` of all messages, at least 16MiB; beyond it the oldest go")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell what the broker does")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing on standard error but errors")
	c.RunE = p.does(func(ctx context.Context, _ []string) error { return p.dev(ctx, &o) })
	return c
}

func (p *program) dev(ctx context.Context, o *devFlags) (err error) {
	options, err := o.options(p.getenv)
	if err != nil {
		return &usageError{err}
	}
	options.Log = slog.New(&noteHandler{p: p, level: o.level()})
	keeps := devKeeps
	if options.Dir == "" {
		keeps = devMemory
	}
	b, err := dev.Open(options)
	if err != nil {
		return devError(err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p.notef("a broker for development, not for production; it %s", keeps)
	p.devReady(b, &options)
	if p.json() {
		ready, err := json.Marshal(map[string]any{
			"ready": true, "broker": b.URL(), "address": b.Address(), "dir": options.Dir, "ephemeral": o.ephemeral,
			"recovered": b.Repairs().Killed, "keeps": keeps,
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.out, "%s\n", ready); err != nil {
			return outputError(err)
		}
	}
	<-ctx.Done()
	p.notef("stops")
	return nil
}

// devReady says where the broker is and what to type next.
func (p *program) devReady(b *dev.Broker, o *dev.Options) {
	if r := b.Repairs(); r.Killed {
		p.notef("the last broker here was killed, or could not write everything: read %s, cut %s that were never acknowledged, aborted %s",
			plural(r.Partitions, "partition"), plural(int(r.Torn), "byte"), plural(r.Aborted, "open transaction"))
	}
	where := "in memory"
	if o.Dir != "" {
		where = "in " + o.Dir
	}
	p.notef("listens at %s, keeps up to %s %s; interrupt it to stop", b.Address(), bytesText(o.MaxBytes), where)
	p.notef("next, in another terminal: export STAGEBUS_BROKER=%s", b.URL())
}

func (o *devFlags) level() slog.Level {
	if o.verbose {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// options checks the flags.
func (o *devFlags) options(getenv func(string) string) (dev.Options, error) {
	d := dev.Options{Listen: o.listen, Advertise: o.advertise, Dir: o.dir, Partitions: o.partitions, AutoCreate: o.autoCreate}
	switch {
	case o.ephemeral && o.dir != "":
		return d, errors.New("both --dir and --ephemeral: give one of them")
	case o.partitions < 1 || o.partitions > maxPartitions:
		return d, fmt.Errorf("--partitions %d: it is 1 to %d", o.partitions, maxPartitions)
	}
	var err error
	if d.MaxBytes, err = parseSize(o.maxBytes); err != nil || d.MaxBytes < dev.MinBytes {
		return d, fmt.Errorf("--max-bytes %q: it is a size of at least 16MiB, such as 1GiB", o.maxBytes)
	}
	if !o.ephemeral && o.dir == "" {
		if d.Dir, err = dev.DefaultDir(getenv); err != nil {
			return d, fmt.Errorf("no place to keep anything: %w; give --dir DIRECTORY, or --ephemeral", err)
		}
	}
	for _, t := range o.topics {
		name, n, given := strings.Cut(t, ":")
		topic := dev.Topic{Name: name}
		if given {
			if topic.Partitions, err = strconv.Atoi(n); err != nil || topic.Partitions < 1 || topic.Partitions > maxPartitions {
				return d, fmt.Errorf("--topic %q: it is name or name:partitions, with 1 to %d partitions", t, maxPartitions)
			}
		}
		if err := dev.CheckTopic(name); err != nil {
			return d, fmt.Errorf("--topic %q: %w", t, err)
		}
		d.Topics = append(d.Topics, topic)
	}
	return d, nil
}

// maxPartitions keeps a slip of the finger from filling the disk with directories.
const maxPartitions = 10_000

// devError adds the flag to change.
func devError(err error) error {
	var inUse *dev.InUseError
	var foreign *dev.ForeignError
	var address *dev.AddressError
	switch {
	case errors.As(err, &inUse):
		return fmt.Errorf("%w; stop it, or give this one another with --dir DIRECTORY or --ephemeral", err)
	case errors.As(err, &foreign):
		return &usageError{fmt.Errorf("%w; give --dir an empty directory or a new one", err)}
	case errors.Is(err, dev.ErrExposed):
		return &usageError{fmt.Errorf("%w; if that is what you want, add --advertise HOST:PORT, the address by which they reach it", err)}
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another broker, or another program; stop it, or give --listen another port, such as 127.0.0.1:0 for a free one", err)
	case errors.As(err, &address):
		err = fmt.Errorf("%w; give --listen an address of this machine, such as 127.0.0.1:9092", err)
		if _, ok := errors.AsType[syscall.Errno](err); !ok { // it isn't one at all
			return &usageError{err}
		}
	}
	return err
}

// parseSize takes bytes, and KiB, MiB, GiB with 1024, KB, MB, GB with 1000.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGiB")
	unit, ok := map[string]int64{
		"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
	}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > 1<<62/unit {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return n * unit, nil
}

func bytesText(n int64) string {
	for _, u := range []struct {
		n    int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n%u.n == 0 && n > 0 {
			return fmt.Sprintf("%d %s", n/u.n, u.name)
		}
	}
	return plural(int(n), "byte")
}

// noteHandler says a log's records on standard error, a line each.
type noteHandler struct {
	p     *program
	level slog.Level
}

// Enabled implements slog.Handler.
func (h *noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle implements slog.Handler.
func (h *noteHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.p.warnf("%s", r.Message)
	} else {
		h.p.notef("%s", r.Message)
	}
	return nil
}

// WithAttrs implements slog.Handler: the records of dev have none.
func (h *noteHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h *noteHandler) WithGroup(string) slog.Handler { return h }
