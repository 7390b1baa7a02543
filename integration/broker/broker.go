// Package broker gives tests a real RabbitMQ or Kafka.
//
// Most tests share one broker of a kind and keep apart by the names of their queues, topics and groups: [Require]. A
// test that stops, kills or freezes its broker takes one of its own: [Private].
//
// There are three ways to a broker, tried in this order:
//
//   - the environment: STAGEBUS_TEST_AMQP_URL and STAGEBUS_TEST_KAFKA_URL, with the optional variables that the methods
//     of [Broker] name. Such a broker belongs to whoever set the variable: it is used and never stopped.
//   - Docker, where an engine answers, through testcontainers. The images are rabbitmq:4-management and
//     apache/kafka:4.1.1, or what STAGEBUS_TEST_RABBITMQ_IMAGE and STAGEBUS_TEST_KAFKA_IMAGE say.
//   - natively, on Linux, with the script integration/brokers, which installs on Debian what is missing.
//
// STAGEBUS_TEST_BROKERS=docker or =native leaves only that one of the last two.
package broker

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// Kind is a kind of broker.
type Kind string

// The kinds of brokers; the values are the ones that integration/brokers takes.
const (
	AMQP  Kind = "amqp"  // RabbitMQ
	Kafka Kind = "kafka" // Apache Kafka
)

// Way is how a broker came about.
type Way string

// The ways to a broker; Docker and Native are also the values of STAGEBUS_TEST_BROKERS.
const (
	Environment Way = "environment"
	Docker      Way = "docker"
	Native      Way = "native"
)

// The variables that carry the address of a broker and its further entrances, between the script, this package and the
// commands that run tests.
const (
	varAMQP       = "STAGEBUS_TEST_AMQP_URL"
	varAMQPS      = "STAGEBUS_TEST_AMQPS_URL"
	varManagement = "STAGEBUS_TEST_AMQP_MANAGEMENT"
	varMetrics    = "STAGEBUS_TEST_AMQP_METRICS"
	varKafka      = "STAGEBUS_TEST_KAFKA_URL"
	varKafkaSASL  = "STAGEBUS_TEST_KAFKA_SASL_URL"
	varKafkaTLS   = "STAGEBUS_TEST_KAFKA_TLS_URL"
	varCerts      = "STAGEBUS_TEST_CERTS"
)

var variables = map[Kind][]string{
	AMQP:  {varAMQP, varAMQPS, varManagement, varMetrics, varCerts},
	Kafka: {varKafka, varKafkaSASL, varKafkaTLS, varCerts},
}

// Broker is a running broker. Its methods are safe for concurrent use; what they return does not change.
type Broker struct {
	kind Kind
	way  Way
	vars map[string]string
}

// Kind returns which broker it is.
func (b *Broker) Kind() Kind { return b.kind }

// Way returns how the broker came about.
func (b *Broker) Way() Way { return b.way }

// URL returns the plain address: amqp://guest:guest@127.0.0.1:PORT/ or kafka://127.0.0.1:PORT.
func (b *Broker) URL() string { return b.vars[variables[b.kind][0]] }

// Addr returns host:port of URL; of several hosts the first.
func (b *Broker) Addr() string {
	addr, _ := address(b.URL())
	return addr
}

// TLSURL returns the address that speaks TLS: amqps://…, where a client certificate may be shown (EXTERNAL logs in as
// its common name) but a password does too; kafkas://…, where a client certificate is required. Not there: ok is false.
// Variables: STAGEBUS_TEST_AMQPS_URL, STAGEBUS_TEST_KAFKA_TLS_URL.
func (b *Broker) TLSURL() (u string, ok bool) {
	if b.kind == AMQP {
		return b.optional(varAMQPS)
	}
	return b.optional(varKafkaTLS)
}

// SASLURL returns Kafka's address that asks for a name and a password, both in the URL. The broker takes them by PLAIN,
// SCRAM-SHA-256 and SCRAM-SHA-512. Not there, or not Kafka: ok is false. Variable: STAGEBUS_TEST_KAFKA_SASL_URL.
func (b *Broker) SASLURL() (u string, ok bool) { return b.optional(varKafkaSASL) }

// Management returns the URL of RabbitMQ's management API, with name and password and without a path. Not there, or not
// RabbitMQ: ok is false. Variable: STAGEBUS_TEST_AMQP_MANAGEMENT.
func (b *Broker) Management() (u string, ok bool) { return b.optional(varManagement) }

// Metrics returns the URL where RabbitMQ's Prometheus plugin serves, without a path. Not there, or not RabbitMQ: ok is false.
// Variable: STAGEBUS_TEST_AMQP_METRICS.
func (b *Broker) Metrics() (u string, ok bool) { return b.optional(varMetrics) }

// Certs names PEM files for TLSURL.
type Certs struct {
	CA        string // of the authority that signed the server's certificate and the client's
	Cert, Key string // of the client
}

// Certs returns the files that a client needs for TLSURL. Not there: ok is false. Variable: STAGEBUS_TEST_CERTS, a folder
// with ca.pem, client.pem and client-key.pem.
func (b *Broker) Certs() (c Certs, ok bool) {
	dir, ok := b.optional(varCerts)
	if !ok {
		return Certs{}, false
	}
	return Certs{
		CA:   filepath.Join(dir, "ca.pem"),
		Cert: filepath.Join(dir, "client.pem"),
		Key:  filepath.Join(dir, "client-key.pem"),
	}, true
}

// String says what and where the broker is, without its password.
func (b *Broker) String() string { return fmt.Sprintf("%s at %s (%s)", b.kind, b.Addr(), b.way) }

func (b *Broker) optional(name string) (string, bool) {
	v := b.vars[name]
	return v, v != ""
}

// environ returns the variables that describe b, as NAME=VALUE.
func (b *Broker) environ() []string {
	var env []string
	for _, name := range variables[b.kind] {
		if v, ok := b.optional(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// address returns host:port of a broker's URL. Kafka's may list several hosts: the first stands for them.
func address(raw string) (string, error) {
	_, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return "", fmt.Errorf("broker: no scheme in the URL of a broker")
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	host, _, _ := strings.Cut(rest, ",")
	u := url.URL{Host: host}
	if u.Port() == "" {
		return "", fmt.Errorf("broker: no port in the URL of a broker, host %q", host)
	}
	return host, nil
}
