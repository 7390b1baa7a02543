package broker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/segmentio/kafka-go"
)

// hello is what a client says first, and how the broker's answer begins. A port that accepts connections is not enough:
// Docker's does from the start, and Kafka's before it serves anyone.
var hello = map[Kind]struct {
	request []byte
	skip    int // bytes of the answer that vary
	answer  []byte
}{
	// The protocol header of AMQP 0-9-1; a method frame, Connection.Start, comes only from a node that has booted.
	AMQP: {[]byte("AMQP\x00\x00\x09\x01"), 0, []byte{1}},
	// ApiVersions, version 0, correlation id 1, no client id; after the answer's length comes the correlation id.
	Kafka: {[]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, 4, []byte{0, 0, 0, 1}},
}

// ask makes one attempt at talking to the broker.
func ask(ctx context.Context, k Kind, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	h := hello[k]
	if _, err := conn.Write(h.request); err != nil {
		return fmt.Errorf("%s at %s: %w", k, addr, err)
	}
	got := make([]byte, h.skip+len(h.answer))
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%s at %s: %w", k, addr, err)
	}
	if !bytes.Equal(got[h.skip:], h.answer) {
		return fmt.Errorf("what listens at %s is no %s: it answers %x", addr, k, got)
	}
	return nil
}

// ready waits until clients can use every entrance of the broker.
func ready(ctx context.Context, b *Broker) error {
	if err := retry(ctx, func() error { return ask(ctx, b.kind, b.Addr()) }); err != nil {
		return err
	}
	if m, ok := b.Management(); ok {
		return retry(ctx, func() error { return askManagement(ctx, m) })
	}
	return nil
}

func askManagement(ctx context.Context, base string) error {
	u, err := url.Parse(base)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("api/overview").String(), nil)
	if err != nil {
		return err
	}
	// One connection for one question: an idle one would show up in a test that counts goroutines.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", u.Redacted(), resp.Status)
	}
	return nil
}

// warm makes a new Kafka create and load its two internal topics. The first group and the first transaction would have to
// wait for them, which takes seconds and answers that other tests than those of retries should not depend on.
func warm(ctx context.Context, b *Broker) error {
	if b.kind != Kafka || b.way == Environment {
		return nil
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(b.Addr()), Transport: transport, Timeout: 10 * time.Second}
	const id = "stagebus-warm-up"
	return retry(ctx, func() error {
		group, err := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: id, Topics: map[string][]int{}})
		if err != nil {
			return err
		}
		if group.Error != nil {
			return group.Error
		}
		producer, err := c.InitProducerID(ctx, &kafka.InitProducerIDRequest{
			TransactionalID: id, TransactionTimeoutMs: 10000,
			ProducerID: -1, ProducerEpoch: -1, // zeros mean a producer that exists: refused from the second time on
		})
		if err != nil {
			return err
		}
		return producer.Error
	})
}

// retry calls f until it succeeds; when ctx ends first it returns f's last error.
func retry(ctx context.Context, f func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
