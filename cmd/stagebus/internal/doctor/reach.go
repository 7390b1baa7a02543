package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// line is a connection to one address, as far as it got.
type line struct {
	host, port string    // as typed or advertised
	ips        []string  // what host is
	addr       string    // ip:port of the one that answered
	conn       *recorder // what the protocol is spoken on
	secured    bool      // in TLS, that is
	askedCert  bool      // the broker wanted to see a client certificate
	gaveCert   bool
}

func newLine(address string) *line {
	l := &line{}
	l.host, l.port, _ = net.SplitHostPort(address) // the adapters have checked it
	return l
}

func (l *line) String() string { return net.JoinHostPort(l.host, l.port) }

func (l *line) close() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing was left to say
	}
}

// recorder remembers how the first bytes that came look: what speaks on a port shows in them.
type recorder struct {
	net.Conn

	mu    sync.Mutex // protects the following: the AMQP library reads in a goroutine of its own
	head  []byte
	first time.Time // when they came
	err   error     // what ended reading
}

const headBytes = 4096

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && r.first.IsZero() {
		r.first = time.Now()
	}
	if room := headBytes - len(r.head); room > 0 {
		r.head = append(r.head, b[:min(n, room)]...)
	}
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// failure is what ended reading, which the AMQP library calls by other names.
func (r *recorder) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// heard returns the first bytes and when they came; the zero time if none has.
func (r *recorder) heard() ([]byte, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.head), r.first
}

// bound ends what is done on c with ctx. The caller calls free when it is done.
func bound(ctx context.Context, c net.Conn) (free func()) {
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(d) // a closed one says so when it is used
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// resolve finds the addresses of l's host.
func (x *exam) resolve(ctx context.Context, l *line) finding {
	if net.ParseIP(strings.SplitN(l.host, "%", 2)[0]) != nil {
		l.ips = []string{l.host}
		return fine("%s is an address", l.host)
	}
	ips, err := x.world.lookup(ctx, l.host)
	if err != nil {
		var dns *net.DNSError
		notFound := errors.As(err, &dns) && dns.IsNotFound
		switch {
		case !notFound && (timedOut(err) || dns != nil && dns.IsTimeout):
			return ill(fmt.Sprintf("looking up the name %s got no answer within %s", l.host, x.Timeout), "check this machine's name server (/etc/resolv.conf), or write an address instead of the name")
		case !notFound:
			return ill(fmt.Sprintf("looking up the name %s failed: %s", l.host, plainError(err)), "check this machine's name server (/etc/resolv.conf), or write an address instead of the name")
		case !strings.Contains(l.host, "."):
			return ill(fmt.Sprintf("this machine knows no host named %s", l.host),
				fmt.Sprintf("check the name in the URL; names of Docker Compose services are known only to containers of the same network: from outside write localhost instead of %s", l.host))
		}
		return ill(fmt.Sprintf("this machine knows no host named %s", l.host), "check the name in the URL, or add it to the name server or to /etc/hosts")
	}
	l.ips = ips
	return fine("%s is %s", l.host, strings.Join(ips, ", "))
}

// connect dials all addresses of l's host at once and keeps the first, in their order, that answers.
func (x *exam) connect(ctx context.Context, l *line) finding {
	conns, errs := make([]net.Conn, len(l.ips)), make([]error, len(l.ips))
	var wg sync.WaitGroup
	for i, ip := range l.ips {
		wg.Go(func() { conns[i], errs[i] = x.world.dial(ctx, "tcp", net.JoinHostPort(ip, l.port)) })
	}
	wg.Wait()
	for i, c := range conns {
		switch {
		case c == nil:
		case l.conn == nil:
			l.conn, l.addr = &recorder{Conn: c}, net.JoinHostPort(l.ips[i], l.port)
		default:
			_ = c.Close() // nothing was said on it
		}
	}
	if l.conn == nil {
		return x.unreachable(l, errs)
	}
	answered := fine("%s answers", l.addr)
	if errs[0] != nil {
		first := net.JoinHostPort(l.ips[0], l.port)
		instead, _, _ := net.SplitHostPort(l.addr)
		return answered.warn(
			fmt.Sprintf("%s is %s first, and %s: clients that don't try a second address fail", l.host, l.ips[0], x.dialError(first, errs[0])),
			fmt.Sprintf("write %s instead of %s in the URL", instead, l.host))
	}
	return answered
}

func (x *exam) unreachable(l *line, errs []error) finding {
	refused, local := true, true
	var addresses []string
	for i, err := range errs {
		refused = refused && errors.Is(err, syscall.ECONNREFUSED)
		local = local && isLoopback(l.ips[i])
		addresses = append(addresses, net.JoinHostPort(l.ips[i], l.port))
	}
	do := fmt.Sprintf("start %s on %s, or correct host and port in the URL (%s)", x.product(), l.host, x.ports())
	if local {
		do = fmt.Sprintf("start it (%s), or correct the port in the URL (%s)", x.start(), x.ports())
	}
	if refused {
		return ill("nothing listens on "+list(addresses, "nor"), do)
	}
	for i, err := range errs {
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return ill(x.dialError(addresses[i], err), "check that the host is up, that no firewall is between, and the address in the URL")
		}
	}
	return ill("no address of "+l.host+" answers", do)
}

// dialError says in words why dialling an address failed.
func (x *exam) dialError(address string, err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens on " + address
	case timedOut(err):
		return fmt.Sprintf("%s gives no answer within %s", address, x.Timeout)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no route to " + address
	}
	return fmt.Sprintf("%s can't be reached: %s", address, plainError(err))
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// hungUp says that the other side closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// plainError is the innermost text of a network error, without the addresses that the message names already.
func plainError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	return err.Error()
}

func isLoopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// product, start and ports are what to say of the kind of broker that is looked at.
func (x *exam) product() string {
	if x.patient.amqp != nil {
		return "RabbitMQ"
	}
	return "Kafka"
}

func (x *exam) start() string {
	if x.patient.amqp != nil {
		return "docker compose up -d --wait"
	}
	return "docker compose up -d --wait, or stagebus dev"
}

func (x *exam) ports() string {
	if x.patient.amqp != nil {
		return "usually 5672, with TLS 5671"
	}
	return "usually 9092, with TLS 9093"
}
