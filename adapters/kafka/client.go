package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/stagebus/stagebus"
)

// anyNode addresses a request to whichever broker the pool is connected to.
const anyNode = -1

// The newest version of each request that is used, where it is not the newest that kafka-go knows: its later forms of
// Heartbeat, LeaveGroup and SyncGroup are read or written wrongly there, and "flexible" encodings bring nothing here.
var newest = map[protocol.ApiKey]int16{
	protocol.JoinGroup:      5,
	protocol.SyncGroup:      3,
	protocol.Heartbeat:      3,
	protocol.LeaveGroup:     0,
	protocol.CreateTopics:   4,
	protocol.DeleteTopics:   3,
	protocol.DescribeGroups: 4,
}

var (
	errNotWritten = errors.New("the connection was closed while idle")
	errAbandoned  = errors.New("given up before it was written")
)

// client sends requests to the brokers of one cluster. It uses kafka-go's Transport as a pool of authenticated connections
// only: requests are routed by our own metadata and written by [exchange], because Transport keeps metadata of whole
// clusters, refreshes it at random times, and can't tell a request that was never written from one that was.
//
// All methods are safe for concurrent use.
type client struct {
	transport *kgo.Transport
	addr      net.Addr
	url       string
	id        string
	timeout   time.Duration
	hook      stagebus.Hook

	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
	closed bool
	none   chan struct{} // closed when closed and no connection is left
}

func newClient(o Options) (*client, error) {
	mechanism, err := o.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	c := &client{
		addr: kgo.TCP(o.Brokers...), url: o.url(), id: o.ClientID, timeout: o.RequestTimeout, hook: o.Hook,
		conns: map[*trackedConn]struct{}{}, none: make(chan struct{}),
	}
	each := max(o.ConnectTimeout/time.Duration(len(o.Brokers)), 100*time.Millisecond)
	c.transport = &kgo.Transport{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.dial(ctx, network, addr, each)
		},
		DialTimeout: o.ConnectTimeout,
		IdleTimeout: 5 * time.Minute,
		MetadataTTL: 2 * time.Second,
		// Empty, not nil: only the list of brokers is wanted, nil would be all topics of the cluster.
		MetadataTopics: []string{},
		ClientID:       o.ClientID,
		TLS:            clone(o.TLS),
		SASL:           mechanism,
	}
	return c, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	var algorithm scram.Algorithm
	switch s.Mechanism {
	case "":
		return nil, nil
	case "plain":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "scram-sha-256":
		algorithm = scram.SHA256
	case "scram-sha-512":
		algorithm = scram.SHA512
	default:
		return nil, &stagebus.InvalidError{Field: "SASL.Mechanism", Value: s.Mechanism, Reason: "not one of plain, scram-sha-256, scram-sha-512"}
	}
	m, err := scram.Mechanism(algorithm, s.User, s.Password)
	if err != nil {
		return nil, &stagebus.InvalidError{Field: "SASL", Reason: "the user name or password can't be used with SCRAM"}
	}
	return m, nil
}

// ask sends one request to a broker and returns its answer. The error is of the network or the context, wrapped in
// *sentError if the request may have been carried out; answers carry the broker's own errors. Without a deadline of
// ctx, the client's request time-out holds.
func (c *client) ask(ctx context.Context, node int32, req protocol.Message) (protocol.Message, error) {
	return c.askRaw(ctx, node, req, nil)
}

// askRaw is ask with another reader for the body of the answer: it gets exactly n bytes to read.
func (c *client) askRaw(ctx context.Context, node int32, req protocol.Message, read func(version int16, r io.Reader, n int) (protocol.Message, error)) (protocol.Message, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, stagebus.ErrClosed // Transport would start anew
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	x := &exchange{Message: req, ctx: ctx, node: node, client: c.id, read: read}
	res, err := c.transport.RoundTrip(ctx, c.addr, x)
	if err == nil {
		return res.(reply).Message, nil
	}
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		err = cause
	}
	if !x.state.CompareAndSwap(exchangeNew, exchangeAbandoned) && x.state.Load() == exchangeWriting {
		return nil, &sentError{err}
	}
	return nil, err
}

// sentError wraps the failure of a request that may have been carried out.
type sentError struct{ err error }

func (e *sentError) Error() string { return e.err.Error() }
func (e *sentError) Unwrap() error { return e.err }

func maySent(err error) bool {
	var s *sentError
	return errors.As(err, &s)
}

// exchange is one request on its way through Transport, which calls its Broker to route it and its RawExchange to carry
// it out.
type exchange struct {
	protocol.Message
	ctx     context.Context
	node    int32
	client  string
	version int16
	read    func(version int16, r io.Reader, n int) (protocol.Message, error)
	state   atomic.Int32
}

// The states of an exchange. The caller may give up while it is new: then it can never be written. From the first byte on it may arrive, whatever
// the write says, unless that byte didn't leave.
const (
	exchangeNew = iota
	exchangeAbandoned
	exchangeWriting
	exchangeUnwritten
)

func (x *exchange) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if x.node == anyNode {
		return protocol.Broker{ID: anyNode}, nil
	}
	if b, ok := cluster.Brokers[x.node]; ok {
		return b, nil
	}
	return protocol.Broker{}, kgo.BrokerNotAvailable
}

func (x *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	x.version = versions[x.ApiKey()]
	if n, ok := newest[x.ApiKey()]; ok {
		x.version = min(x.version, n)
	}
	return true
}

// reply hides the type of an answer from Transport, which would act on some of them: wait until a new topic shows in its
// metadata, where none ever does.
type reply struct{ protocol.Message }

func (x *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	m, err := x.carryOut(rw)
	if err != nil {
		return nil, err
	}
	return reply{m}, nil
}

func (x *exchange) carryOut(rw io.ReadWriter) (protocol.Message, error) {
	if c, ok := rw.(net.Conn); ok {
		// The end of the context ends the wait at once; the connection is useless afterwards and Transport drops it.
		stop := context.AfterFunc(x.ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	if p, ok := x.Message.(protocol.PreparedMessage); ok {
		p.Prepare(x.version)
	}
	w := &noteWrites{w: rw, state: &x.state}
	if err := protocol.WriteRequest(w, x.version, 1, x.client, x.Message); err != nil {
		return nil, err
	}
	if x.read == nil {
		_, res, err := protocol.ReadResponse(rw, x.ApiKey(), x.version)
		return res, err
	}
	var head [8]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if n < 0 {
		return nil, errors.New("negative size of an answer")
	}
	return x.read(x.version, rw, n)
}

// noteWrites takes an exchange from new to writing before its first byte.
type noteWrites struct {
	w     io.Writer
	state *atomic.Int32
	begun bool
}

func (w *noteWrites) Write(b []byte) (int, error) {
	first := !w.begun
	w.begun = true
	if first && !w.state.CompareAndSwap(exchangeNew, exchangeWriting) {
		return 0, errAbandoned // the caller has gone and counts on its not being written
	}
	n, err := w.w.Write(b)
	if first && n == 0 && errors.Is(err, errNotWritten) {
		w.state.Store(exchangeUnwritten)
	}
	return n, err
}

// trackedConn is a connection that the client can close from outside.
type trackedConn struct {
	net.Conn
	c    *client
	once sync.Once
}

func (c *client) dial(ctx context.Context, network, addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: nc, c: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = nc.Close()
		return nil, stagebus.ErrClosed
	}
	c.conns[t] = struct{}{}
	return t, nil
}

func (t *trackedConn) Write(b []byte) (int, error) {
	if hungUp(t.Conn) {
		return 0, errNotWritten
	}
	return t.Conn.Write(b)
}

func (t *trackedConn) Close() error {
	err := t.Conn.Close()
	t.once.Do(func() {
		t.c.mu.Lock()
		defer t.c.mu.Unlock()
		delete(t.c.conns, t)
		if t.c.closed && len(t.c.conns) == 0 {
			close(t.c.none)
		}
	})
	return err
}

// close ends all connections and waits until Transport has let go of them.
func (c *client) close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	if len(c.conns) == 0 {
		close(c.none)
	}
	for t := range c.conns {
		_ = t.SetDeadline(time.Unix(1, 0)) // wakes who reads; the pool then closes it
	}
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
	select {
	case <-c.none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
