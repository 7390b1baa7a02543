package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// speech is what is spoken on a port.
type speech string

const (
	silence speech = ""
	isAMQP  speech = "AMQP"
	isKafka speech = "Kafka"
	isTLS   speech = "TLS"
	isHTTP  speech = "HTTP"
)

// speechOf tells from the first bytes of an answer. Kafka's have no mark of their own: only an answer to its question shows it.
func speechOf(head []byte) speech {
	switch {
	case bytes.HasPrefix(head, []byte("AMQP")), bytes.HasPrefix(head, []byte{1, 0, 0, 0}):
		return isAMQP
	case bytes.HasPrefix(head, []byte("HTTP/")):
		line, _, _ := bytes.Cut(head, []byte("\r\n\r\n"))
		if bytes.Contains(line, []byte(" 400 ")) && bytes.Contains(head, []byte("HTTPS")) {
			return isTLS // Go's servers and nginx say so in plain text
		}
		return isHTTP
	case len(head) >= 3 && (head[0] == 0x15 || head[0] == 0x16) && head[1] == 3:
		return isTLS
	}
	return silence
}

// sniffTimeout bounds each of the questions. They are asked of something that answered nothing sensible before.
const sniffTimeout = time.Second

// sniff asks what listens on l's address in every language, each on a connection of its own.
func (x *exam) sniff(ctx context.Context, l *line) speech {
	ask := func(f func(context.Context, net.Conn) speech) speech {
		ctx, cancel := context.WithTimeout(ctx, sniffTimeout)
		defer cancel()
		c, err := x.world.dial(ctx, "tcp", l.addr)
		if err != nil {
			return silence
		}
		defer c.Close() //nolint:errcheck // nothing to lose
		defer bound(ctx, c)()
		return f(ctx, c)
	}
	for _, f := range []func(context.Context, net.Conn) speech{
		func(_ context.Context, c net.Conn) speech {
			// RabbitMQ answers this with its own header.
			if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l); err != nil {
				return silence
			}
			head, _ := io.ReadAll(io.LimitReader(c, headBytes)) // however it ended
			return speechOf(head)
		},
		func(_ context.Context, c net.Conn) speech {
			if _, err := apiVersions(c, "stagebus"); err != nil {
				return silence
			}
			return isKafka
		},
		func(ctx context.Context, c net.Conn) speech {
			r := &recorder{Conn: c}
			// Whether it can be trusted is not the question here, and nothing is sent.
			err := tls.Client(r, &tls.Config{InsecureSkipVerify: true, ServerName: l.host}).HandshakeContext(ctx)
			if err == nil {
				return isTLS
			}
			head, _ := r.heard()
			return speechOf(head)
		},
	} {
		if s := ask(f); s != silence {
			return s
		}
	}
	return silence
}

// encrypts says that the URL asks for TLS.
func (x *exam) encrypts() bool { return strings.HasSuffix(x.patient.url.Scheme, "s") }

// foreign says that something else than the broker speaks on l.
func (x *exam) foreign(l *line, s speech) finding {
	want := x.patient.url.Scheme
	at, other := l.String(), strings.ToLower(string(s))
	if l.secured {
		other += "s"
	}
	switch {
	case s == isTLS:
		return wrong(fmt.Sprintf("%s speaks TLS, and %s:// doesn't", at, want),
			fmt.Sprintf("write %ss://%s (with ?cacertfile=FILE if an authority of your own signed its certificate)", want, at))
	case s == isHTTP && l.port == "15672":
		return wrong(at+" is RabbitMQ's management interface (HTTP), not the port for messages", fmt.Sprintf("correct the port in the URL (%s)", x.ports()))
	case s == isHTTP:
		return wrong(fmt.Sprintf("a web server (HTTP) listens on %s, not %s", at, x.product()), fmt.Sprintf("correct the port in the URL (%s)", x.ports()))
	case s == x.wants():
		return wrong(fmt.Sprintf("%s speaks %s without TLS", at, s), fmt.Sprintf("write %s://%s, or the port that speaks TLS (%s)", other, at, x.ports()))
	case s == isAMQP:
		return wrong(fmt.Sprintf("RabbitMQ (AMQP) listens on %s, not Kafka", at), fmt.Sprintf("write %s://%s, or Kafka's port (%s)", other, at, x.ports()))
	}
	return wrong(fmt.Sprintf("Kafka listens on %s, not RabbitMQ", at), fmt.Sprintf("write %s://%s, or RabbitMQ's port (%s)", other, at, x.ports()))
}

// wants is the protocol that is spoken with the broker.
func (x *exam) wants() speech {
	if x.patient.amqp != nil {
		return isAMQP
	}
	return isKafka
}

// mute says why something that accepted the connection didn't greet, or not with TLS where that was next: it is something else, or isn't
// ready. err is what reading gave.
func (x *exam) mute(ctx context.Context, l *line, err error) finding {
	next := x.wants()
	if x.encrypts() && !l.secured {
		next = isTLS
	}
	head, _ := l.conn.heard()
	s := speechOf(head)
	if s == silence && !l.secured {
		// The step's time may be over by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*sniffTimeout)
		defer cancel()
		s = x.sniff(ctx, l)
	}
	if s != silence && s != next {
		return x.foreign(l, s)
	}
	if hungUp(err) && l.askedCert && l.secured {
		return x.refusedCert(l, "") // TLS 1.3 tells after the handshake, and not every broker tells
	}
	what := "answers with what isn't " + x.product() + "'s protocol"
	switch {
	case timedOut(err):
		what = fmt.Sprintf("says nothing within %s", x.Timeout)
	case hungUp(err):
		what = "closes the connection without an answer"
	}
	return ill(fmt.Sprintf("something listens on %s and %s", l, what),
		fmt.Sprintf("if %s is starting there, wait for it (--wait 60s); else see its log (docker compose logs), and check the port in the URL (%s)", x.product(), x.ports()))
}
