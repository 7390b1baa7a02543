package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"
)

// expiresSoon is from when on an expiring certificate is a warning.
const expiresSoon = 30 * 24 * time.Hour

// secure speaks TLS on l. The certificate is checked after the handshake, so that all that is wrong with it is told.
func (x *exam) secure(ctx context.Context, l *line, trusted *tls.Config) finding {
	conf := trusted.Clone()
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if conf.ServerName == "" {
		conf.ServerName = l.host
	}
	conf.InsecureSkipVerify = true // judge verifies below, before anything is sent
	mine := conf.Certificates
	conf.Certificates = nil
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		l.askedCert = true
		if len(mine) == 0 {
			return &tls.Certificate{}, nil
		}
		l.gaveCert = true
		return &mine[0], nil
	}
	c := tls.Client(l.conn, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		if number, said, ok := alert(err); ok {
			return x.refusedTLS(l, number, said)
		}
		return x.mute(ctx, l, err)
	}
	l.conn, l.secured = &recorder{Conn: c}, true
	state := c.ConnectionState()
	now := x.world.now()
	if f := judge(state.PeerCertificates, conf.RootCAs, conf.ServerName, l, x.patient.url.Scheme, now); f.status != OK {
		return f
	}
	leaf := state.PeerCertificates[0]
	f := fine("%s, certificate for %s, valid until %s", tls.VersionName(state.Version), list(names(leaf), "and"), day(leaf.NotAfter))
	if left := leaf.NotAfter.Sub(now); left < expiresSoon {
		return f.warn(fmt.Sprintf("the certificate of %s expires in %s, on %s", l, days(left), day(leaf.NotAfter)),
			"renew it (issuer: "+leaf.Issuer.String()+") before clients are refused")
	}
	if len(mine) > 0 {
		return judgeMine(f, &mine[0], now)
	}
	return f
}

// judge says what is wrong with a server's certificate for those who trust roots and call the server name.
func judge(chain []*x509.Certificate, roots *x509.CertPool, name string, l *line, scheme string, now time.Time) finding {
	leaf := chain[0]
	var causes, dos []string
	add := func(cause, do string) { causes, dos = append(causes, cause), append(dos, do) }
	if leaf.VerifyHostname(name) != nil {
		have := names(leaf)
		switch {
		case len(have) == 0:
			add(fmt.Sprintf("the certificate of %s names no host (it has no subjectAltName)", l), fmt.Sprintf("issue it with subjectAltName=%s", san(name)))
		default:
			add(fmt.Sprintf("the certificate is for %s, not for %s", list(have, "and"), name),
				fmt.Sprintf("write %s://%s, or add ?server_name_indication=%s to the URL, or issue the certificate with subjectAltName=%s",
					scheme, net.JoinHostPort(have[0], l.port), have[0], san(name)))
		}
	}
	switch {
	case now.After(leaf.NotAfter):
		add(fmt.Sprintf("the certificate of %s expired on %s, %s ago", l, day(leaf.NotAfter), days(now.Sub(leaf.NotAfter))),
			fmt.Sprintf("renew it (issuer: %s), or set this machine's clock if today isn't %s", leaf.Issuer, day(now)))
	case now.Before(leaf.NotBefore):
		add(fmt.Sprintf("the certificate of %s is valid only from %s on, in %s", l, day(leaf.NotBefore), days(leaf.NotBefore.Sub(now))),
			fmt.Sprintf("set this machine's clock if today isn't %s, or issue the certificate anew", day(now)))
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	when := now
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		when = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2) // told already
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: when, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
	case errors.As(err, &unknown):
		who := "signed by " + leaf.Issuer.String() + ", which this machine doesn't trust"
		if leaf.Issuer.String() == leaf.Subject.String() {
			who = "signed by itself, and this machine doesn't trust it"
		}
		do := "add ?cacertfile=FILE to the URL, with the PEM certificate of the authority that signed it"
		if roots != nil {
			do = "name in cacertfile the authority that signed it: the one there is another"
		}
		add(fmt.Sprintf("the certificate of %s is %s", l, who), do)
	default:
		add(fmt.Sprintf("the certificate of %s can't be verified: %s", l, strings.TrimPrefix(err.Error(), "x509: ")), "issue it anew, for servers (extendedKeyUsage=serverAuth)")
	}
	if len(causes) == 0 {
		return fine("")
	}
	return wrong(strings.Join(causes, "; "), strings.Join(dos, "; "))
}

// judgeMine looks at our own certificate: brokers say little about what they don't like.
func judgeMine(f finding, mine *tls.Certificate, now time.Time) finding {
	leaf := mine.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(mine.Certificate[0]); err != nil {
			return wrong("the client certificate can't be read: "+err.Error(), "correct certfile in the URL")
		}
	}
	left := leaf.NotAfter.Sub(now)
	switch {
	case left < 0:
		return wrong(fmt.Sprintf("the client certificate of %s expired on %s", leaf.Subject, day(leaf.NotAfter)), "renew what certfile names in the URL")
	case now.Before(leaf.NotBefore):
		return wrong(fmt.Sprintf("the client certificate of %s is valid only from %s on", leaf.Subject, day(leaf.NotBefore)), "set this machine's clock, or issue what certfile names anew")
	case left < expiresSoon:
		return f.warn(fmt.Sprintf("the client certificate of %s expires in %s, on %s", leaf.Subject, days(left), day(leaf.NotAfter)), "renew what certfile names in the URL")
	}
	return f
}

// alert returns the alert by which the other side ended TLS. crypto/tls doesn't export the type that it gives it.
func alert(err error) (number uint8, said string, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, "", false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, "", false
	}
	return uint8(v.Uint()), strings.TrimPrefix(op.Err.Error(), "tls: "), true
}

// The alerts, by their numbers in RFC 8446.
const (
	alertHandshakeFailure = 40
	alertProtocolVersion  = 70
	alertUnrecognizedName = 112
)

// certificateAlerts are those by which a server says that it is about our certificate.
var certificateAlerts = map[uint8]bool{42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 116: true}

// refusedTLS says what a server's alert means.
func (x *exam) refusedTLS(l *line, number uint8, said string) finding {
	switch {
	case certificateAlerts[number], number == alertHandshakeFailure && l.askedCert:
		return x.refusedCert(l, said)
	case number == alertProtocolVersion, number == alertHandshakeFailure:
		return wrong(fmt.Sprintf("%s and this program have no version or cipher of TLS in common (%s)", l, said),
			"enable TLS 1.2 or 1.3 in the broker (RabbitMQ: ssl_options.versions; Kafka: ssl.enabled.protocols)")
	case number == alertUnrecognizedName:
		return wrong(fmt.Sprintf("%s knows no certificate for the name %s (%s)", l, l.host, said), "add ?server_name_indication=NAME to the URL, with a name that its certificate has")
	}
	return wrong(fmt.Sprintf("%s refused the TLS handshake: %s", l, said), "see the broker's log")
}

// refusedCert says that the broker doesn't let us in with our certificate, or without one.
func (x *exam) refusedCert(l *line, said string) finding {
	if said != "" {
		said = " (" + said + ")"
	}
	if !l.gaveCert {
		return wrong(fmt.Sprintf("%s wants a client certificate, and the URL names none%s", l, said),
			"add ?certfile=FILE&keyfile=FILE to the URL, with a certificate that the broker's authority signed").about(stepLogin)
	}
	return wrong(fmt.Sprintf("%s doesn't accept the client certificate%s", l, said),
		"name in certfile one that is signed by an authority which the broker trusts (RabbitMQ: ssl_options.cacertfile; Kafka: ssl.truststore.location)").about(stepLogin)
}

func names(c *x509.Certificate) []string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// san is a name in openssl's form.
func san(name string) string {
	if net.ParseIP(name) != nil {
		return "IP:" + name
	}
	return "DNS:" + name
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func days(d time.Duration) string {
	n := int(d / (24 * time.Hour))
	switch {
	case n == 0:
		return "less than a day"
	case n == 1:
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}
