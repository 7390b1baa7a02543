package integration

import (
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// document is the message that everybody sends first, and documentSeen what the programs print of it.
const (
	document     = `{"id": 1, "text": "Hello World", "timestamp": 1625512731}`
	documentSeen = "id 1, text Hello World, timestamp 1625512731\n"
)

var (
	documentProducer = pythonPeer("pika", "document_producer.py")
	documentConsumer = pythonPeer("pika", "document_consumer.py")
	pikaDeclare      = pythonPeer("pika", "declare.py")
)

// messageQueue is the document's queue, under a name that no other run uses. It is deleted with the test, whoever declares it.
func messageQueue(t *testing.T, b *broker.Broker) string {
	t.Helper()
	name := "message_queue_" + strings.ToLower(rand.Text())
	ch := amqpRaw(t, b)
	t.Cleanup(func() {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	})
	return name
}

// The document's own programs and ours, theirs first: the queue is theirs, durable or not, and used as it is.
func TestInteropDocumentTheirsFirst(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	for _, durable := range [][]string{nil, {"durable"}} {
		args := func(queue string) []string { return append([]string{pikaURL(t, b.URL()), queue}, durable...) }
		t.Run("producer"+strings.Join(durable, ""), func(t *testing.T) {
			queue := messageQueue(t, b)
			documentProducer.run(t, "", args(queue)...)
			if got := cliOK(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "--format", "raw"); got != document+"\n" {
				t.Errorf("stagebus printed %q", got)
			}
			// What was printed is gone, and pika may go on declaring its queue.
			if r := cli(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "-q"); r.code != 3 || r.out != "" {
				t.Errorf("%+v", r)
			}
			documentProducer.run(t, "", args(queue)...)
		})
		t.Run("consumer"+strings.Join(durable, ""), func(t *testing.T) {
			queue := messageQueue(t, b)
			theirs := documentConsumer.start(t, args(queue)...)
			if line := theirs.next(t); line != "ready" {
				t.Fatal(line)
			}
			cliOK(t, b.URL(), "", "topics", "declare", queue) // it exists: that is enough
			cliOK(t, b.URL(), "", "publish", "--topic", queue, document)
			if got := theirs.next(t); got+"\n" != documentSeen {
				t.Errorf("pika printed %q", got)
			}
			theirs.end(t)
		})
	}
}

// refused runs a program that declares a queue as it isn't, and wants what pika makes of the broker's refusal.
func refused(t *testing.T, p peer, want string, args ...string) {
	t.Helper()
	r := p.try(t, "", args...)
	if r.code == 0 || r.out != "" || !strings.Contains(r.err, "pika.exceptions.ChannelClosedByBroker: (406, \"PRECONDITION_FAILED - inequivalent arg "+want) {
		t.Errorf("%v: want a 406 about %s, got %+v", args, want, r)
	}
}

const (
	notDurable = "'durable' for queue "
	otherType  = "'x-queue-type' for queue "
)

// Ours first: we declare the queue durable, and the document's programs, which declare it otherwise, are refused by the broker with a 406.
// That does nothing to our side or to the queue, and there are three ways for them to go on.
func TestInteropDocumentOursFirst(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	address := pikaURL(t, b.URL())
	first := map[string]func(t *testing.T, url, queue string){
		"declared": func(t *testing.T, url, queue string) { cliOK(t, url, "", "topics", "declare", queue) },
		"producer": func(t *testing.T, url, queue string) {
			r := cli(t, url, "", "publish", "--topic", queue, document)
			if r.code == 0 || !strings.Contains(r.err, "stagebus topics declare "+queue) {
				t.Errorf("publish to nobody: %+v", r)
			}
			cliOK(t, url, "", "publish", "--create", "--topic", queue, document)
			cliOK(t, url, "", "consume", "--topic", queue, "-n", "1")
		},
	}
	for name, begin := range first {
		t.Run(name, func(t *testing.T) {
			queue := messageQueue(t, b)
			begin(t, b.URL(), queue)
			refused(t, documentProducer, notDurable, address, queue)
			refused(t, documentConsumer, notDurable, address, queue)
			// Ours is a quorum queue, where the server has them; durable alone isn't enough.
			refused(t, documentProducer, otherType, address, queue, "durable")
			worksAll(t, b, queue)

			// One that declares the very same gets on; from RabbitMQ 4.0 on a limit of deliveries belongs to it.
			same := pikaDeclare.try(t, "", address, queue, `{"durable": true, "arguments": {"x-queue-type": "quorum"}}`)
			limit := pikaDeclare.try(t, "", address, queue, `{"durable": true, "arguments": {"x-queue-type": "quorum", "x-delivery-limit": -1}}`)
			if same.code != 0 && limit.code != 0 {
				t.Errorf("one of the two is how we declare it: %+v, %+v", same, limit)
			}

			// A program that doesn't say what the queue should be gets on.
			pikaDeclare.run(t, "", address, queue, `{"passive": true}`)
			publishLines(t, withPika, []amqpLine{{Body: []byte(document)}}, address, "", queue)
			if got := cliOK(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "--format", "raw"); got != document+"\n" {
				t.Errorf("stagebus printed %q", got)
			}
			cliOK(t, b.URL(), "", "publish", "--topic", queue, document)
			if got := consumeLines[amqpLine](t, withPika, 1, address, queue)[0]; string(got.Body) != document || len(got.Headers) > 0 {
				t.Errorf("pika got %v", got)
			}
		})
		t.Run(name+"classic", func(t *testing.T) {
			queue := messageQueue(t, b)
			begin(t, b.URL()+"?queue_type=classic", queue)
			refused(t, documentProducer, notDurable, address, queue)
			worksAll(t, b, queue)
			// A classic queue is what durable=True declares.
			documentProducer.run(t, "", address, queue, "durable")
			if got := cliOK(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "--format", "raw"); got != document+"\n" {
				t.Errorf("stagebus printed %q", got)
			}
			cliOK(t, b.URL(), "", "publish", "--topic", queue, document)
			if got := documentConsumer.run(t, "", address, queue, "durable"); got != "ready\n"+documentSeen {
				t.Errorf("pika printed %q", got)
			}
		})
	}
}

// worksAll sends a message of ours through the queue.
func worksAll(t *testing.T, b *broker.Broker, queue string) {
	t.Helper()
	cliOK(t, b.URL(), "", "publish", "--topic", queue, "still ours")
	if got := cliOK(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "--format", "raw"); got != "still ours\n" {
		t.Errorf("stagebus printed %q", got)
	}
}

// Our consumer first, at work while their programs are refused: it goes on as if nothing had been.
func TestInteropDocumentOurConsumerFirst(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	address := pikaURL(t, b.URL())
	queue := messageQueue(t, b)
	told := newEvents()
	o := amqpOptions(t, b)
	o.Hook = told.hook
	c := amqpConsumer(t, amqpOpen(t, o), stagebus.ConsumerOptions{Topics: []string{queue}, Create: true})
	refused(t, documentProducer, notDurable, address, queue)
	refused(t, documentProducer, otherType, address, queue, "durable")
	publishLines(t, withPika, []amqpLine{{Body: []byte(document)}}, address, "", queue)
	d := amqpReceive(t, c, 1)[0]
	if string(d.Body) != document || d.Redelivered {
		t.Errorf("%+v", d)
	}
	amqpSettle(t, c, stagebus.Done, d)
	for len(told) > 0 {
		if e := <-told; e.Kind != stagebus.EventConnected && e.Kind != stagebus.EventAssigned {
			t.Errorf("our consumer noticed: %+v", e)
		}
	}
}

// pikaURL writes the default virtual host as pika wants it: an empty path is a virtual host without a name to it.
func pikaURL(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path, u.RawPath = "//", "/%2F"
	}
	u.RawQuery = ""
	return u.String()
}
