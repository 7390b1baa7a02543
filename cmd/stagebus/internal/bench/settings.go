package bench

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/stagebus/stagebus"
)

// Mode is what is measured.
type Mode string

// The modes.
const (
	// Publish: from the schedule to the broker's confirmation. Nobody consumes.
	Publish Mode = "publish"
	// Consume: messages are published first, then read and settled as fast as possible.
	Consume Mode = "consume"
	// Both: publishing and consuming at the same time, from the schedule to Receive.
	Both Mode = "both"
	// Request: a reply for each message, from the schedule to the receipt of the reply.
	Request Mode = "request"
)

// Durability is what a confirmation promises.
type Durability string

// The durabilities.
const (
	// Safe is what producers do by default.
	Safe Durability = "safe"
	// Unsafe is faster: a confirmed message may be lost when the broker fails. See [Target] for what it means on each broker.
	Unsafe Durability = "unsafe"
)

// Settings are what is measured and how. They are part of every [Report], and figures of other settings aren't compared.
type Settings struct {
	Mode  Mode  `json:"mode"`
	Sizes []int `json:"sizes"` // bytes of bodies: each is measured by itself
	// Rate is the messages a second of all producers together, sent by a schedule that doesn't wait for the broker. 0: as fast as possible,
	// and then at half of what that was.
	Rate float64 `json:"rate"`
	// Duration is how long messages are sent after Warmup, Count how many are (0: as many as Duration allows). Consume publishes so
	// long or so many, and then reads all of them.
	Duration time.Duration `json:"duration_ns"`
	Count    int64         `json:"count"`
	// Warmup is how long messages are sent first that aren't part of the figures. They are counted as lost all the same if they are.
	Warmup    time.Duration `json:"warmup_ns"`
	Producers int           `json:"producers"`
	Consumers int           `json:"consumers"`
	Batch     int           `json:"batch"`      // messages of one Submit or Receive at most
	Keys      int           `json:"keys"`       // different keys, 0: messages without one
	Parts     int           `json:"partitions"` // of topics that are made here, on brokers that have partitions
	Window    int           `json:"window"`     // stagebus.ProducerOptions.Window, 0: its default
	Prefetch  int           `json:"prefetch"`   // stagebus.ConsumerOptions.Prefetch, 0: its default
	// InFlight bounds what was sent and has not arrived while messages are sent as fast as possible, so that a queue doesn't grow without bound.
	// 0: 65,536 messages of at most 64 MiB for Both, 100 requests for Request.
	InFlight   int        `json:"in_flight"`
	Durability Durability `json:"durability"`
	Rounds     int        `json:"rounds"`
	// Topic is one that exists, which is then neither deleted nor purged; empty: a new one for every measurement.
	Topic string `json:"topic"`
}

// Defaults are the settings of a run that says nothing else.
func Defaults(m Mode) Settings {
	return Settings{
		Mode: m, Sizes: []int{1000}, Duration: 5 * time.Second, Warmup: time.Second, Producers: 1, Consumers: 1, Batch: 256, Keys: 64,
		Parts: 4, Durability: Safe, Rounds: 1,
	}
}

// The limits that keep a typo from eating the machine.
const (
	maxClients = 1000
	maxKeys    = 1 << 20
	maxSize    = 128 << 20
	maxRate    = 1e8
)

// Check says which setting is wrong, by the name of its flag.
func (s Settings) Check() error {
	positive := []struct {
		name     string
		n, most  int
		zeroToo  bool
		whatZero string
	}{
		{"producers", s.Producers, maxClients, false, ""},
		{"consumers", s.Consumers, maxClients, false, ""},
		{"batch", s.Batch, 1 << 16, false, ""},
		{"partitions", s.Parts, 10_000, false, ""},
		{"rounds", s.Rounds, 1000, false, ""},
		{"keys", s.Keys, maxKeys, true, "no key"},
		{"window", s.Window, 1 << 24, true, "the default"},
		{"prefetch", s.Prefetch, 1 << 24, true, "the default"},
		{"in-flight", s.InFlight, 1 << 24, true, "the default"},
	}
	for _, p := range positive {
		switch {
		case p.zeroToo && (p.n < 0 || p.n > p.most):
			return fmt.Errorf("--%s %d: it is from 1 to %d, or 0 for %s", p.name, p.n, p.most, p.whatZero)
		case !p.zeroToo && (p.n < 1 || p.n > p.most):
			return fmt.Errorf("--%s %d: it is from 1 to %d", p.name, p.n, p.most)
		}
	}
	switch {
	case !slices.Contains([]Mode{Publish, Consume, Both, Request}, s.Mode):
		return fmt.Errorf("mode %q: it is publish, consume, both or request", s.Mode)
	case len(s.Sizes) == 0:
		return fmt.Errorf("--size: name at least one")
	case s.Durability != Safe && s.Durability != Unsafe:
		return fmt.Errorf("--durability %q: it is safe or unsafe", s.Durability)
	case s.Rate < 0 || s.Rate > maxRate || math.IsNaN(s.Rate) || s.Rate > 0 && s.Rate < 1e-3:
		return fmt.Errorf("--rate %v: it is messages a second, at most %.0f, or 0 for as fast as possible", s.Rate, maxRate)
	case s.Mode == Consume && s.Rate > 0:
		return fmt.Errorf("--rate %v: consume reads as fast as it can; \"bench both --rate\" measures what arrives at a rate", s.Rate)
	case s.Count < 0:
		return fmt.Errorf("--count %d: it is negative", s.Count)
	case s.Duration <= 0 && s.Count == 0:
		return fmt.Errorf("--duration %v: it is positive, unless --count says when to end", s.Duration)
	case s.Duration < 0 || s.Duration > 24*time.Hour:
		return fmt.Errorf("--duration %v: it is at most 24h", s.Duration)
	case s.Warmup < 0 || s.Warmup > time.Hour:
		return fmt.Errorf("--warmup %v: it is from 0 to 1h", s.Warmup)
	}
	for _, n := range s.Sizes {
		if n < prefixSize || n > maxSize {
			return fmt.Errorf("--size %s: it is from %d B, which the number and the time of a message need, to %s", Size(n), prefixSize, Size(maxSize))
		}
	}
	if s.Topic != "" {
		if err := stagebus.CheckTopic(s.Topic); err != nil {
			return err
		}
		if s.Mode == Request {
			return fmt.Errorf("--topic %s: request needs a topic that nobody else answers; leave it out", s.Topic)
		}
		if s.Consumers > 1 {
			return fmt.Errorf("--consumers %d: of a given --topic each would get a copy; give 1", s.Consumers)
		}
	}
	return nil
}

// inFlight is InFlight with its default for bodies of a size.
func (s Settings) inFlight(size int) int {
	switch {
	case s.InFlight > 0:
		return s.InFlight
	case s.Mode == Request:
		return 100
	}
	const messages, bytes = 1 << 16, 64 << 20
	return max(1, min(messages, bytes/size))
}

// batch is how many messages of a size go into one Submit at most: a quarter of a producer's window of bytes, so that a batch doesn't fill it.
func (s Settings) batch(size int) int {
	const bytes = 4 << 20
	return max(1, min(s.Batch, bytes/size))
}
