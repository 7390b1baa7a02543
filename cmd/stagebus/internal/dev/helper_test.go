package dev

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are a broker in a fresh directory.
func options(t *testing.T) Options {
	t.Helper()
	return Options{Listen: "127.0.0.1:0", Dir: filepath.Join(t.TempDir(), "dev"), MaxBytes: 1 << 30, AutoCreate: true}
}

// open starts a broker that ends with the test.
func open(t *testing.T, o Options) *Broker {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, b) })
	return b
}

func shut(t *testing.T, b *Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// crash returns the options of a broker on a copy of the directory as it is now: what a kill at this moment leaves.
func crash(t *testing.T, o Options) Options {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dev")
	err := filepath.WalkDir(o.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(o.Dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	return o
}

// connect opens the library on a broker.
func connect(t *testing.T, b *Broker) *stagebus.Broker {
	t.Helper()
	bus, err := adapters.Open(t.Context(), b.URL(), adapters.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(t, bus) })
	return bus
}

func hangUp(t *testing.T, bus *stagebus.Broker) {
	t.Helper()
	if err := bus.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// send sends messages with the bodies first, first+1, … and returns when they are acknowledged.
func send(t *testing.T, bus *stagebus.Broker, topic string, first, n int) {
	t.Helper()
	p, err := bus.Producer(t.Context(), stagebus.ProducerOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i < first+n; i++ { // a batch each
		if err := stagebus.Send(t.Context(), p, stagebus.Message{Topic: topic, Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// bodies are what a topic of one partition holds, from the first message to the last.
func bodies(t *testing.T, b *Broker, topic string) []string {
	t.Helper()
	i := b.cluster.PartitionInfo(topic, 0)
	if i == nil {
		t.Fatalf("there is no topic %q", topic)
	}
	if i.HighWatermark == i.LogStartOffset {
		return nil
	}
	client := client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	var all []string
	for {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			all = append(all, string(r.Value))
			if r.Offset == i.HighWatermark-1 {
				return all
			}
		}
	}
}

// client is a client of other make.
func client(t *testing.T, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Address())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// numbers are the bodies that send writes.
func numbers(first, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(first+i))
	}
	return all
}
