package urlparam_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/urlparam"
)

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParse(t *testing.T) {
	var s, one string
	var d time.Duration
	n := 7
	set := urlparam.Set{"name": urlparam.String(&s), "wait": urlparam.Duration(&d), "count": urlparam.Int(&n), "acks": urlparam.OneOf(&one, "all", "one")}
	if err := urlparam.Parse(parse(t, "x://h/?name=a%26b&wait=1m30s&count=0&acks=one"), set); err != nil {
		t.Fatal(err)
	}
	if s != "a&b" || d != 90*time.Second || n != 0 || one != "one" {
		t.Errorf("%q %v %d %q", s, d, n, one)
	}
	if err := urlparam.Parse(parse(t, "x://h/"), nil); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for query, want := range map[string]string{
		"wiat=1s":                      "invalid URL parameter \"wiat\": unknown; did you mean \"wait\"?",
		"Count=1":                      "did you mean \"count\"?",
		"zzzzzzzz=1":                   "unknown; known are acks, count, name, wait",
		"=1":                           "unknown",
		"name=a&name=b":                "given twice",
		"wait=10":                      "not a positive duration",
		"wait=0s":                      "not a positive duration",
		"wait=-1s":                     "not a positive duration",
		"count=-1":                     "not a whole number",
		"count=1.5":                    "not a whole number",
		"count=":                       "not a whole number",
		"count=9999999999999999999999": "not a whole number",
		"acks=none":                    "not one of all, one",
		"name=%zz":                     "invalid URL escape",
		"name=a;b=c":                   "semicolon",
	} {
		var s string
		var d time.Duration
		var n int
		set := urlparam.Set{"name": urlparam.String(&s), "wait": urlparam.Duration(&d), "count": urlparam.Int(&n), "acks": urlparam.OneOf(&s, "all", "one")}
		err := urlparam.Parse(parse(t, "x://user:secret@h/?"+query), set)
		var invalid *stagebus.InvalidError
		if !errors.As(err, &invalid) || !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an InvalidError with %q", query, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"amqp://user:secret@h:5672/v?x=secret#secret": "amqp://h:5672/v",
		"amqp://h/%2f":              "amqp://h/%2f",
		"memory://":                 "memory:",
		"amqp:user:secret@h":        "amqp:",
		"kafka://a:1,b:2/?p=secret": "kafka://a:1,b:2/",
	} {
		u := parse(t, in)
		before := *u
		if got := urlparam.Redact(u); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
		if *u != before {
			t.Errorf("Redact changed %q", in)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certPEM, keyPEM := certificate(t)
	cert, key, garbage, missing := write("cert.pem", certPEM), write("key.pem", keyPEM), write("garbage", []byte("no PEM")), filepath.Join(dir, "missing")

	config := func(query string) (*tls.Config, error) {
		var p urlparam.TLS
		set := urlparam.Set{}
		p.Params(set)
		if err := urlparam.Parse(parse(t, "amqps://h/?"+query), set); err != nil {
			t.Fatal(err)
		}
		return p.Config()
	}
	c, err := config("cacertfile=" + cert + "&certfile=" + cert + "&keyfile=" + key + "&server_name_indication=name")
	if err != nil {
		t.Fatal(err)
	}
	if c.RootCAs == nil || len(c.Certificates) != 1 || c.ServerName != "name" || c.MinVersion != tls.VersionTLS12 || c.InsecureSkipVerify {
		t.Errorf("%+v", c)
	}
	if c, err := config(""); err != nil || c.RootCAs != nil || c.Certificates != nil || c.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", c, err)
	}
	for query, want := range map[string]string{
		"cacertfile=" + missing:                       "no such file",
		"cacertfile=" + garbage:                       "no PEM certificate",
		"certfile=" + cert:                            "one without the other",
		"keyfile=" + key:                              "one without the other",
		"certfile=" + cert + "&keyfile=" + garbage:    "PEM",
		"certfile=" + missing + "&keyfile=" + garbage: "no such file",
	} {
		if _, err := config(query); !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", query, err, want)
		}
	}
}

// certificate returns one that signs itself.
func certificate(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kb})
}

func ExampleParse() {
	u, err := url.Parse("amqp://user:secret@host/?hartbeat=10s")
	if err != nil {
		panic(err)
	}
	var heartbeat time.Duration
	fmt.Println(urlparam.Parse(u, urlparam.Set{"heartbeat": urlparam.Duration(&heartbeat)}))
	fmt.Println(urlparam.Redact(u))
	// Output:
	// invalid URL parameter "hartbeat": unknown; did you mean "heartbeat"?
	// amqp://host/
}
