package amqp

import (
	"strconv"
	"strings"

	"github.com/rabbitmq/amqp091-go"
)

// server is what a connection's peer says it is, and what follows from that.
type server struct {
	rabbit       bool
	major, minor int
	text         string // for people
}

// serverOf reads the properties that a server shows in its greeting. Another product than RabbitMQ, or a version that can't be read, gets the
// least that all servers share.
func serverOf(properties amqp091.Table) server {
	product, _ := properties["product"].(string)
	text, _ := properties["version"].(string)
	s := server{rabbit: product == "RabbitMQ", text: strings.TrimSpace(product + " " + text)}
	parts := strings.SplitN(text, ".", 3)
	if len(parts) < 2 {
		return server{text: s.text}
	}
	var err1, err2 error
	s.major, err1 = strconv.Atoi(parts[0])
	s.minor, err2 = strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil || s.major < 0 || s.minor < 0 {
		return server{text: s.text}
	}
	return s
}

func (s server) atLeast(major, minor int) bool {
	return s.rabbit && (s.major > major || s.major == major && s.minor >= minor)
}

// quorumQueues came with 3.8.
func (s server) quorumQueues() bool { return s.atLeast(3, 8) }

// deliveryLimit: from 4.0 a quorum queue drops what was delivered 20 times, releases included, unless told -1. Before, there is no limit and
// -1 is refused.
func (s server) deliveryLimit() bool { return s.atLeast(4, 0) }

// safeDeadLettering: from 3.10 a quorum queue has message TTLs, and keeps an expired message until the next queue has confirmed it.
func (s server) safeDeadLettering() bool { return s.atLeast(3, 10) }

// maxMessage is the server's default for the largest body. An unknown one is held to the smaller.
func (s server) maxMessage() int {
	if s.rabbit && !s.atLeast(4, 0) {
		return 128 << 20
	}
	return 16 << 20
}
