// Package dev is a broker for development: one process that speaks Kafka's protocol and keeps its topics in a directory.
//
// It is kfake, a broker made for tests, with what a process that is killed and restarted needs beside: topics that are on disk before
// a client hears of them, a directory that one process has for itself and that is repaired after a kill, a bound on what is kept.
// There is one broker, no replication, no password, no encryption and no fsync.
package dev

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options are what a broker is made of. The zero value isn't usable: Listen and MaxBytes must be set.
type Options struct {
	// Listen is host:port. The host must be this machine's loopback unless Advertise is set; port 0 takes a free one.
	Listen string
	// Advertise is the host:port that clients are told to connect to; empty: the one listened on. Without a port it is the one
	// listened on. Setting it lets other machines in.
	Advertise string
	// Dir is where everything is kept; empty: in memory, until Close.
	Dir string
	// Partitions is the number of partitions of topics that don't say how many they want; 0: 1.
	Partitions int
	// AutoCreate makes topics that a client asks for and that don't exist, where the client allows that.
	AutoCreate bool
	// Topics are made if they don't exist.
	Topics []Topic
	// MaxBytes bounds the messages of all topics together: beyond it the oldest of the largest partitions go. See retain.
	MaxBytes int64
	// Log is told what went wrong and, at lower levels, what is going on; nil: nobody is.
	Log *slog.Logger
}

// Topic is a topic to begin with; Partitions 0 means Options.Partitions.
type Topic struct {
	Name       string
	Partitions int
}

// Broker is a running broker. Its methods are safe for concurrent use.
type Broker struct {
	options Options
	cluster *kfake.Cluster
	dir     *directory // nil: in memory
	log     *logger
	address string
	repairs Repairs
	topics  topics

	stop    chan struct{} // ends retain
	retains sync.WaitGroup
	once    sync.Once
	err     error // of Close
}

// Open starts a broker; it takes connections when Open returns. A directory that another process uses is an *[InUseError], an
// address that can't be listened on an *[AddressError]. The caller closes it.
func Open(o Options) (*Broker, error) {
	if o.MaxBytes < MinBytes {
		return nil, fmt.Errorf("at least %d bytes must be kept, not %d", MinBytes, o.MaxBytes)
	}
	o.Partitions = max(o.Partitions, 1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	listen, err := newListening(o.Listen, o.Advertise)
	if err != nil {
		return nil, err
	}
	b := &Broker{options: o, log: &logger{to: o.Log}, stop: make(chan struct{})}
	listen.log = b.log
	if err := b.open(listen); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Broker) open(listen *listening) (err error) {
	if b.options.Dir != "" {
		if b.dir, err = claim(b.options.Dir); err != nil {
			return err
		}
		if b.repairs, err = repair(b.dir.data(), b.dir.killed); err != nil {
			return fmt.Errorf("repair %s: %w", b.options.Dir, err)
		}
		if err := b.dir.occupied(listen.address); err != nil {
			return err
		}
	}
	if b.cluster, err = kfake.NewCluster(b.config(listen)...); err != nil {
		if listen.err != nil {
			return listen.err // not in kfake's words
		}
		return err
	}
	b.address = listen.advertised
	if err := b.dir.occupied(b.address); err != nil {
		return err
	}
	return b.begin()
}

// config translates the options for kfake.
func (b *Broker) config(listen *listening) []kfake.Opt {
	segment := min(max(b.options.MaxBytes/16, 1<<20), 16<<20)
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(listen.listen),
		kfake.ClusterID("stagebus-dev"),
		kfake.DefaultNumPartitions(b.options.Partitions),
		kfake.WithLogger(b.log),
		kfake.BrokerConfigs(map[string]string{
			// As a developer expects it: the first consumer of a group begins at once.
			"group.initial.rebalance.delay.ms": "0",
			// Segments are what retain takes from the disk.
			"log.segment.bytes": strconv.FormatInt(segment, 10),
			// Never: kfake compacts by deleting a partition's files before it writes the new ones, and a kill in between would lose
			// them. The same timer drives its retention by topic.
			"log.cleaner.backoff.ms": strconv.FormatInt(100*365*24*60*60*1000, 10),
		}),
	}
	if b.dir != nil {
		opts = append(opts, kfake.DataDir(b.dir.data()))
	}
	return opts
}

// begin makes the first topics and starts what runs beside kfake.
func (b *Broker) begin() error {
	names, err := b.dir.topics()
	if err != nil {
		return err
	}
	b.topics.add(names...)
	for _, t := range b.options.Topics {
		if b.cluster.TopicInfo(t.Name) != nil {
			if n := len(b.cluster.PartitionInfos(t.Name)); t.Partitions > 0 && n != t.Partitions {
				b.log.to.Warn(fmt.Sprintf("topic %q exists with %d partitions, not %d: left as it is", t.Name, n, t.Partitions))
			}
			continue
		}
		if err := b.create(t.Name, t.Partitions); err != nil {
			return fmt.Errorf("topic %q: %w", t.Name, err)
		}
	}
	b.observe(kmsg.Metadata, b.onMetadata)
	b.observe(kmsg.CreateTopics, b.onCreateTopics)
	b.observe(kmsg.DeleteGroups, b.onDeleteGroups)
	b.retains.Go(b.retain)
	return nil
}

// Address is the host:port that clients are told to connect to.
func (b *Broker) Address() string { return b.address }

// URL is where the library and the command connect to.
func (b *Broker) URL() string { return "kafka://" + b.address }

// Repairs says what was done to the directory before it was used.
func (b *Broker) Repairs() Repairs { return b.repairs }

// Close ends connections and writes what makes the next start short. It returns what couldn't be written; messages that were
// acknowledged are on disk before. It may be called again.
func (b *Broker) Close() error {
	b.once.Do(func() {
		close(b.stop)
		b.retains.Wait() // or it would ask a cluster that has ended, and wait forever
		b.log.closing.Store(true)
		if b.cluster != nil {
			b.cluster.Close()
		}
		b.err = errors.Join(b.log.failed(), b.dir.leave(!b.log.lost.Load()))
	})
	return b.err
}

// dataDir is where kfake's files are below the directory.
const dataDir = "data"

func (d *directory) data() string { return filepath.Join(d.path, dataDir) }
