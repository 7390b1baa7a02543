package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol/metadata"
)

// tlsConfig is that of the URL.
func (x *exam) tlsConfig() *tls.Config {
	if x.patient.amqp != nil {
		return x.patient.amqp.TLS
	}
	return x.patient.kafka.TLS
}

// maxDials bounds how many of a cluster's brokers are dialled at once.
const maxDials = 16

// listeners asks the broker behind entry for the addresses that it sends clients to, and goes the whole way to each.
//
// A client dials what it is told, not what was typed: that this differs is the most frequent reason why Kafka in a container "doesn't work".
func (x *exam) listeners(ctx context.Context, entry *kline) bool {
	var told *metadata.Response
	if !x.step(ctx, stepListener, entry.String(), func(ctx context.Context) finding {
		var err error
		if told, err = clusterOf(ctx, entry); err != nil {
			return x.lostKafka(entry, "question for the cluster's brokers", err)
		}
		if len(told.Brokers) == 0 {
			return ill(fmt.Sprintf("%s knows of no broker in its cluster", entry), "it may be starting: see its log, also of the controller")
		}
		return fine("")
	}) {
		return false
	}
	x.report.Steps = x.report.Steps[:len(x.report.Steps)-1] // one line for each broker instead
	slices.SortFunc(told.Brokers, func(a, b metadata.ResponseBroker) int { return int(a.NodeID) - int(b.NodeID) })
	findings, took := make([]finding, len(told.Brokers)), make([]time.Duration, len(told.Brokers))
	free := make(chan struct{}, maxDials)
	var wg sync.WaitGroup
	for i := range told.Brokers {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			within, cancel := context.WithTimeout(ctx, x.Timeout)
			defer cancel()
			began := time.Now()
			findings[i] = x.listener(within, entry, told, told.Brokers[i])
			took[i] = time.Since(began)
		})
	}
	wg.Wait()
	ok := true
	for i, b := range told.Brokers {
		x.note(stepListener, address(b), took[i], findings[i])
		ok = ok && findings[i].ok()
	}
	return ok
}

func clusterOf(ctx context.Context, k *kline) (*metadata.Response, error) {
	defer bound(ctx, k.line.conn)()
	m, err := k.conn.RoundTrip(&metadata.Request{TopicNames: []string{}}) // none, where nil would be all
	if err != nil {
		return nil, err
	}
	return m.(*metadata.Response), nil
}

func address(b metadata.ResponseBroker) string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

// listener looks at the address that one broker advertises.
func (x *exam) listener(ctx context.Context, entry *kline, told *metadata.Response, b metadata.ResponseBroker) finding {
	at := address(b)
	for _, other := range told.Brokers {
		if other.NodeID < b.NodeID && address(other) == at {
			return wrong(fmt.Sprintf("brokers %d and %d both send clients to %s", other.NodeID, b.NodeID, at),
				fmt.Sprintf("give each its own address in advertised.listeners (Docker: KAFKA_ADVERTISED_LISTENERS) of broker %d", b.NodeID))
		}
	}
	k := &kline{line: newLine(at)}
	defer k.close()
	there := fmt.Sprintf("broker %d sends clients to %s", b.NodeID, at)
	do := x.advertise(entry, told, b)
	for _, look := range x.wayTo(k) {
		if got := look(ctx); !got.ok() {
			cause := there + ", and " + got.cause
			if isLoopback(b.Host) && !isLoopback(entry.ip()) {
				cause = fmt.Sprintf("%s, which is this machine itself and not the broker's (%s)", there, entry.host)
				do = "take the port of its listener that is meant for this machine, if it has one (in Docker Compose, containers have another than the host: often 19092 or 29092); or else " + do
			}
			if got.step == stepTLS || got.step == stepLogin || got.step == stepVersion {
				return finding{status: Fail, cause: cause, do: got.do + "; or else " + do, heals: got.heals}
			}
			return finding{status: Fail, cause: cause, do: do, heals: got.heals}
		}
	}
	reached, err := clusterOf(ctx, k)
	switch {
	case err != nil:
		got := x.lostKafka(k, "question for the cluster's brokers", err)
		return finding{status: Fail, cause: there + ", and " + got.cause, do: do, heals: got.heals}
	case reached.ClusterID != told.ClusterID:
		return wrong(fmt.Sprintf("%s, and there another cluster answers (%s instead of %s)", there, reached.ClusterID, told.ClusterID), do)
	}
	f := fine("broker %d, as typed", b.NodeID)
	if at != entry.String() {
		f = fine("broker %d (typed was %s)", b.NodeID, entry)
	}
	if isLoopback(b.Host) && !isLoopback(entry.ip()) {
		return f.warn(there+": that works only on its own machine", do)
	}
	return f
}

// wayTo are the looks at what k leads to, up to the login.
func (x *exam) wayTo(k *kline) []func(context.Context) finding {
	about := func(step string, look func(context.Context) finding) func(context.Context) finding {
		return func(ctx context.Context) finding { return look(ctx).about(step) }
	}
	looks := []func(context.Context) finding{
		func(ctx context.Context) finding { return x.resolve(ctx, k.line) },
		func(ctx context.Context) finding { return x.connect(ctx, k.line) },
	}
	if x.encrypts() {
		looks = append(looks, about(stepTLS, func(ctx context.Context) finding { return x.secure(ctx, k.line, x.tlsConfig()) }))
	}
	return append(looks,
		about(stepVersion, func(ctx context.Context) finding { return x.greetKafka(ctx, k) }),
		about(stepLogin, func(ctx context.Context) finding { return x.loginKafka(ctx, k) }))
}

// ip is the address that answered.
func (l *line) ip() string {
	host, _, _ := net.SplitHostPort(l.addr)
	return host
}

// advertise is the line to change. Which address would be right is known when there is one broker only: the one that was typed.
func (x *exam) advertise(entry *kline, told *metadata.Response, b metadata.ResponseBroker) string {
	to, of := entry.String(), "the broker"
	if len(told.Brokers) > 1 {
		to, of = "HOST:PORT", fmt.Sprintf("broker %d", b.NodeID)
	}
	protocol := "PLAINTEXT"
	if x.encrypts() {
		protocol = "SSL"
	}
	if x.patient.kafka.SASL.Mechanism != "" {
		protocol = "SASL_" + protocol
	}
	why := ""
	if to == "HOST:PORT" {
		why = ", an address of it that this machine reaches"
	}
	return fmt.Sprintf("in server.properties of %s set advertised.listeners=%s://%s%s (Docker: KAFKA_ADVERTISED_LISTENERS; keep the name of the listener and the other listeners), and restart it",
		of, protocol, to, why)
}
