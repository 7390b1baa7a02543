package doctor

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
)

// serve listens on a port of 127.0.0.1 and gives every connection to talk, whose end closes it. conf: in TLS. It returns host:port.
func serve(t *testing.T, conf *tls.Config, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				talk(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// closedPort is an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// network is a world with its own names and routes.
type network struct {
	names  map[string][]string // host: addresses
	routes map[string]string   // address: where it really is; "refused", "silent" or "unreachable" for what fails
}

func (n network) world() world {
	return world{
		lookup: func(_ context.Context, host string) ([]string, error) {
			if ips := n.names[host]; ips != nil {
				return ips, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			fail := func(err error) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", err)}
			}
			to := n.routes[address]
			switch to {
			case "":
				to = address
			case "refused":
				return fail(syscall.ECONNREFUSED)
			case "unreachable":
				return fail(syscall.EHOSTUNREACH)
			case "silent":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	}
}

// fakeKafka answers what doctor asks before it sends messages.
type fakeKafka struct {
	cluster string
	brokers func() []metadata.ResponseBroker
	offers  []string // SASL mechanisms; none: no login
	refuse  int16    // code of the answer to a password
	said    string
}

func (f *fakeKafka) talk(c net.Conn) {
	r := bufio.NewReader(c)
	loggedIn := len(f.offers) == 0
	for {
		size, err := r.Peek(4)
		if err != nil || binary.BigEndian.Uint32(size) > 1<<20 {
			return // as Kafka does with what isn't a request
		}
		version, id, _, request, err := protocol.ReadRequest(r)
		if err != nil {
			return
		}
		var answer protocol.Message
		switch q := request.(type) {
		case *apiversions.Request:
			a := &apiversions.Response{}
			for key, most := range map[protocol.ApiKey]int16{protocol.Produce: 9, protocol.Fetch: 12, protocol.Metadata: 8, protocol.OffsetFetch: 7,
				protocol.SaslHandshake: 1, protocol.SaslAuthenticate: 1, protocol.ApiVersions: 3} {
				a.ApiKeys = append(a.ApiKeys, apiversions.ApiKeyResponse{ApiKey: int16(key), MaxVersion: most})
			}
			answer = a
		case *saslhandshake.Request:
			a := &saslhandshake.Response{Mechanisms: f.offers, ErrorCode: 33}
			for _, o := range f.offers {
				if o == q.Mechanism {
					a.ErrorCode = 0
				}
			}
			if len(f.offers) == 0 {
				a.ErrorCode = 34
			}
			answer = a
		case *saslauthenticate.Request:
			loggedIn = f.refuse == 0
			answer = &saslauthenticate.Response{ErrorCode: f.refuse, ErrorMessage: f.said}
		case *metadata.Request:
			if !loggedIn {
				return
			}
			answer = &metadata.Response{ClusterID: f.cluster, Brokers: f.brokers(), ControllerID: 1}
		default:
			return
		}
		if err := protocol.WriteResponse(c, version, id, answer); err != nil {
			return
		}
	}
}

func brokersAt(addresses ...string) func() []metadata.ResponseBroker {
	return func() []metadata.ResponseBroker {
		var bs []metadata.ResponseBroker
		for i, a := range addresses {
			host, port, _ := net.SplitHostPort(a)
			n, _ := net.LookupPort("tcp", port)
			bs = append(bs, metadata.ResponseBroker{NodeID: int32(i + 1), Host: host, Port: int32(n)})
		}
		return bs
	}
}

// fakeAMQP greets and then does what after says with the connection, once the login came.
type fakeAMQP struct {
	product, version, mechanisms string
	after                        func(c net.Conn, r *bufio.Reader)
}

func (f *fakeAMQP) talk(c net.Conn) {
	r := bufio.NewReader(c)
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		return
	}
	if string(head[:4]) != "AMQP" {
		_, _ = c.Write([]byte("AMQP\x00\x00\x09\x01")) // as RabbitMQ does; nobody may be there any more
		return
	}
	be := binary.BigEndian
	var table []byte
	for _, kv := range [][2]string{{"product", f.product}, {"version", f.version}} {
		table = append(append(table, byte(len(kv[0]))), kv[0]...)
		table = append(be.AppendUint32(append(table, 'S'), uint32(len(kv[1]))), kv[1]...)
	}
	body := []byte{0, 10, 0, 10, 0, 9}
	body = append(be.AppendUint32(body, uint32(len(table))), table...)
	body = append(be.AppendUint32(body, uint32(len(f.mechanisms))), f.mechanisms...)
	body = append(be.AppendUint32(body, 5), "en_US"...)
	if _, err := c.Write(frame(body)); err != nil {
		return
	}
	if !skipFrame(r) { // start-ok
		return
	}
	if f.after != nil {
		f.after(c, r)
	}
}

// tuned goes on to connection.open, and then does what after says.
func tuned(after func(net.Conn, *bufio.Reader)) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		tune := []byte{0, 10, 0, 30, 0, 0, 0, 2, 0, 0, 0, 60}
		if _, err := c.Write(frame(tune)); err != nil || !skipFrame(r) || !skipFrame(r) {
			return
		}
		after(c, r)
	}
}

// refuses closes the connection with a code and a text.
func refuses(code uint16, text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		body := binary.BigEndian.AppendUint16([]byte{0, 10, 0, 50}, code)
		body = append(append(body, byte(len(text))), text...)
		body = append(body, 0, 0, 0, 0)
		if _, err := c.Write(frame(body)); err == nil {
			skipFrame(r) // close-ok
		}
	}
}

func frame(body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{1, 0, 0}, uint32(len(body)))
	return append(append(b, body...), 0xce)
}

func skipFrame(r *bufio.Reader) bool {
	head := make([]byte, 7)
	if _, err := io.ReadFull(r, head); err != nil {
		return false
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(head[3:]))+1)
	return err == nil
}

func talkHTTP(c net.Conn) {
	if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") // nobody may be there any more
	}
}

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-10 * 365 * 24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = writePEM(t, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), strings.ToLower(strings.ReplaceAll(kind, " ", "-"))+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// issue returns a certificate for names and addresses that is valid from now+from to now+to.
func (a *authority) issue(cn string, from, to time.Duration, names ...string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	parent, signer := a.cert, a.key
	if cn == "self" {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// files writes a certificate and its key, and returns the parameters of a URL that name them.
func (a *authority) files(c tls.Certificate) string {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	return "certfile=" + writePEM(a.t, "CERTIFICATE", c.Certificate[0]) + "&keyfile=" + writePEM(a.t, "PRIVATE KEY", der)
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}
