package meter

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics. Their names and labels stay as they are: dashboards and alerts are built on them.
var (
	sentMessages     = desc("sent_messages_total", "Messages that the broker has confirmed.")
	sentBytes        = desc("sent_bytes_total", "Bytes of the messages that the broker has confirmed: key, body, headers.")
	sendFailures     = desc("send_failures_total", "Messages that were refused or whose fate is uncertain.")
	receivedMessages = desc("received_messages_total", "Messages received, redeliveries included.")
	receivedBytes    = desc("received_bytes_total", "Bytes of the messages received: key, body, headers.")
	settledMessages  = desc("settled_messages_total", "Messages settled, by verdict: done, release, retry, reject.", "verdict")
	latencySeconds   = desc("latency_seconds", "Time from the stamp of a message to its receipt.")
	eventsTotal      = prometheus.NewDesc("stagebus_events_total", "What happened inside the adapters: connected, disconnected, blocked, stale…", []string{"kind"}, nil)
)

// buckets are the upper bounds of latency_seconds, from what a broker on the same machine takes to what a queue that has piled up does.
var buckets = []time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stagebus_"+name, help, append([]string{"topic"}, labels...), nil)
}

// Collector exposes the meter's numbers to a Prometheus registry.
func (m *Meter) Collector() prometheus.Collector { return collector{m} }

type collector struct{ m *Meter }

func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		sentMessages, sentBytes, sendFailures, receivedMessages, receivedBytes, settledMessages, latencySeconds, eventsTotal,
	} {
		to <- d
	}
}

func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, t := range c.m.all() {
		t.collect(to)
	}
	c.m.mu.Lock()
	events := maps.Clone(c.m.events)
	c.m.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(events)) {
		to <- count(eventsTotal, events[kind], string(kind))
	}
}

func (t *topic) collect(to chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &t.n
	to <- count(sentMessages, n.Sent, n.Name)
	to <- count(sentBytes, n.SentBytes, n.Name)
	to <- count(sendFailures, n.SendFailed, n.Name)
	to <- count(receivedMessages, n.Received, n.Name)
	to <- count(receivedBytes, n.ReceivedBytes, n.Name)
	to <- count(settledMessages, n.Done, n.Name, "done")
	to <- count(settledMessages, n.Released, n.Name, "release")
	to <- count(settledMessages, n.Retried, n.Name, "retry")
	to <- count(settledMessages, n.Rejected, n.Name, "reject")
	if t.latency != nil {
		to <- prometheus.MustNewConstHistogram(latencySeconds, uint64(t.latency.TotalCount()), t.sum.Seconds(), t.cumulated(), n.Name)
	}
}

// cumulated counts the latencies up to each bound. A value counts as its class's upper end, which is at most 1 % above it.
func (t *topic) cumulated() map[float64]uint64 {
	out := make(map[float64]uint64, len(buckets))
	for _, b := range buckets {
		out[b.Seconds()] = 0
	}
	for _, bar := range t.latency.Distribution() {
		for _, b := range buckets {
			if bar.To <= b.Microseconds() {
				out[b.Seconds()] += uint64(bar.Count)
			}
		}
	}
	return out
}

func count(d *prometheus.Desc, n int64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}
