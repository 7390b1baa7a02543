package dev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrExposed refuses an address that other machines reach: there is no password.
var ErrExposed = errors.New("other machines reach that address, and the broker asks nobody for a password")

// AddressError says that an address can't be listened on.
type AddressError struct {
	Address string
	Err     error
}

func (e *AddressError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Address, e.Err) }
func (e *AddressError) Unwrap() error { return e.Err }

// listening is the address of a broker: kfake asks it for a listener, and tells clients the address of that.
type listening struct {
	address    string
	advertise  string
	advertised string // once it listens
	err        error  // if it couldn't
	log        *logger
}

func newListening(address, advertise string) (*listening, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, &AddressError{address, err}
	}
	if advertise == "" && !tcp.IP.IsLoopback() {
		return nil, &AddressError{address, ErrExposed}
	}
	if advertise != "" {
		host, port, err := net.SplitHostPort(advertise)
		if err != nil { // without a port
			host, port = advertise, strconv.Itoa(tcp.Port)
		}
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 && tcp.Port != 0 {
			return nil, &AddressError{advertise, errors.New("to be told to clients, it must be host:port")}
		}
		advertise = net.JoinHostPort(host, port)
	}
	return &listening{address: tcp.String(), advertise: advertise}, nil
}

// listen is a kfake.ListenFn; the address that kfake would choose is not asked for.
func (l *listening) listen(network, _ string) (net.Listener, error) {
	inner, err := net.Listen(network, l.address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the address is said once
		}
		l.err = &AddressError{l.address, err}
		return nil, l.err
	}
	l.advertised = inner.Addr().String()
	if l.advertise != "" {
		l.advertised = l.advertise
		if host, port, _ := net.SplitHostPort(l.advertise); port == "0" {
			_, port, _ = net.SplitHostPort(inner.Addr().String())
			l.advertised = net.JoinHostPort(host, port)
		}
	}
	return &listener{inner, l}, nil
}

// listener says the advertised address where kfake asks for its own.
type listener struct {
	net.Listener
	l *listening
}

func (l *listener) Addr() net.Addr { return address(l.l.advertised) }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guard{Conn: c, log: l.l.log}, nil
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// maxRequest is the longest request, as Kafka's socket.request.max.bytes.
const maxRequest = 100 << 20

// guard ends connections that don't speak Kafka. kfake takes the first four bytes for a length and makes room for that much, a gigabyte
// for a browser's "GET ", and an unknown request ends the process.
type guard struct {
	net.Conn
	log  *logger
	head [6]byte // length and key of the request that is being read
	have int     // bytes of head
	left int     // bytes of the request after head
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if bad := g.check(p[:n]); bad != nil {
		g.log.Logf(kfake.LogLevelInfo, "%s is cut off: %v", g.RemoteAddr(), bad)
		return 0, bad
	}
	return n, err
}

// check follows the requests through what was read.
func (g *guard) check(b []byte) error {
	for len(b) > 0 {
		if g.left > 0 {
			skip := min(g.left, len(b))
			g.left -= skip
			b = b[skip:]
			continue
		}
		n := copy(g.head[g.have:], b)
		g.have += n
		b = b[n:]
		if g.have < 4 {
			continue
		}
		size := binary.BigEndian.Uint32(g.head[:])
		if size < 8 || size > maxRequest {
			return fmt.Errorf("a request of %d bytes: it doesn't speak Kafka", size)
		}
		if g.have < len(g.head) {
			continue
		}
		key := int16(binary.BigEndian.Uint16(g.head[4:]))
		if kmsg.RequestForKey(key) == nil {
			return fmt.Errorf("request %d is unknown", key)
		}
		g.log.Logf(kfake.LogLevelDebug, "%s sends %s of %d bytes", g.RemoteAddr(), kmsg.NameForKey(key), size)
		g.have, g.left = 0, int(size)-2
	}
	return nil
}
