package amqp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

func TestClassify(t *testing.T) {
	said := func(code int) error {
		return fmt.Errorf("wrapped: %w", &amqp091.Error{Code: code, Reason: "said", Server: true})
	}
	for _, c := range []struct {
		err  error
		want error
	}{
		{said(amqp091.AccessRefused), stagebus.ErrAuth},
		{said(amqp091.NotAllowed), stagebus.ErrAuth},
		{said(amqp091.NotFound), stagebus.ErrNotFound},
		{said(amqp091.ResourceLocked), stagebus.ErrConflict},
		{said(amqp091.PreconditionFailed), stagebus.ErrConflict},
		{said(amqp091.NotImplemented), stagebus.ErrUnsupported},
		{said(amqp091.ConnectionForced), stagebus.ErrUnavailable},
		{&amqp091.Error{Code: amqp091.NotFound, Reason: "made up here"}, stagebus.ErrUnavailable},
		{amqp091.ErrCredentials, stagebus.ErrAuth},
		{amqp091.ErrSASL, stagebus.ErrAuth},
		{amqp091.ErrVhost, stagebus.ErrAuth},
		{amqp091.ErrClosed, stagebus.ErrUnavailable},
		{io.EOF, stagebus.ErrUnavailable},
		{context.DeadlineExceeded, stagebus.ErrUnavailable},
		{stagebus.ErrClosed, stagebus.ErrClosed},
	} {
		if _, kind := classify(c.err); !errors.Is(kind, c.want) {
			t.Errorf("%v: %v, want %v", c.err, kind, c.want)
		}
	}
}

// A server that wants a client certificate ends the handshake with an alert.
func TestClassifyAlert(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"h"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	near, far := net.Pipe()
	defer near.Close() //nolint:errcheck // a pipe
	defer far.Close()  //nolint:errcheck // a pipe
	ended := make(chan error, 1)
	go func() {
		ended <- tls.Server(far, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			ClientAuth:   tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12, // 1.3 tells after the handshake
		}).HandshakeContext(t.Context())
	}()
	err = tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "h"}).HandshakeContext(t.Context())
	if do, kind := classify(err); !errors.Is(kind, stagebus.ErrAuth) || !strings.Contains(do, "certfile") {
		t.Errorf("%v: %v, %s", err, kind, do)
	}
	if err := <-ended; err == nil {
		t.Error("the server was content")
	}
}

func TestFail(t *testing.T) {
	c := testConfig(t, Options{User: "u", Password: "topsecret"})
	inner := c.fail("connect", "", stagebus.ErrAuth, io.EOF, "check the password")
	err := c.fail("consume", "t", nil, inner, "")
	if !errors.Is(err.Kind, stagebus.ErrAuth) || !errors.Is(err.Cause, io.EOF) || err.Do != "check the password" || err.Op != "consume" {
		t.Errorf("%+v", err)
	}
	if s := err.Error(); strings.Contains(s, "topsecret") || !strings.Contains(s, `"t" at amqp://localhost:5672/`) {
		t.Error(s)
	}
	if d := (&driver{config: c}); !errors.Is(d.wrongNative("want x", 5), stagebus.ErrInvalid) {
		t.Error("a wrong Native isn't ErrInvalid")
	} else if _, err := d.deliveryMode(ConsumerOptions{}); !errors.Is(err, stagebus.ErrInvalid) {
		t.Error("a producer takes a consumer's Native")
	}
}
