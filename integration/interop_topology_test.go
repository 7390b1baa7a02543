package integration

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
)

// Programs that publish to the default exchange, as tutorials do, reach the default group; the exchange of all topics reaches every group, and
// gives a queue that they bind to it a copy of what we send.
func TestInteropAMQPGroups(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		bus := amqpOpen(t, amqpOptions(t, b))
		topic := amqpTopic(t, bus, stagebus.TopicSpec{Groups: []string{"infer"}})
		address := pikaURL(t, b.URL())
		publishLines(t, p, []amqpLine{{Body: []byte("by the queue's name")}}, address, "", topic)
		publishLines(t, p, []amqpLine{{Body: []byte("by the exchange")}}, address, "stagebus", topic)
		for group, want := range map[string][]string{"": {"by the queue's name", "by the exchange"}, "infer": {"by the exchange"}} {
			c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}, Group: group})
			for _, body := range want {
				d := amqpReceive(t, c, 1)[0]
				if string(d.Body) != body || d.Topic != topic {
					t.Errorf("group %q received %q of %s, want %q", group, d.Body, d.Topic, body)
				}
				amqpSettle(t, c, stagebus.Done, d)
			}
		}
	})
	t.Run("a queue of theirs", func(t *testing.T) {
		withPika.command(t)
		bus := amqpOpen(t, amqpOptions(t, b))
		topic := amqpTopic(t, bus, stagebus.TopicSpec{})
		queue, address := messageQueue(t, b), pikaURL(t, b.URL())
		withPika.run(t, "", "bind", address, "stagebus", topic[:len(topic)-1], queue) // another topic
		withPika.run(t, "", "bind", address, "stagebus", topic, queue)
		if err := stagebus.Send(amqpContext(t), amqpProducer(t, bus, stagebus.ProducerOptions{}), stagebus.Message{Topic: topic, Body: []byte(document)}); err != nil {
			t.Fatal(err)
		}
		if got := consumeLines[amqpLine](t, withPika, 1, address, queue)[0]; string(got.Body) != document {
			t.Errorf("pika got %v", got)
		}
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
		amqpSettle(t, c, stagebus.Done, amqpReceive(t, c, 1)...)
	})
}

// Each client says in its own way that a queue of ours isn't what it declares.
func TestInteropAMQPRefused(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	says := map[string]string{
		withPika.name:     "pika.exceptions.ChannelClosedByBroker: (406, ",
		withAioPika.name:  "aiormq.exceptions.ChannelPreconditionFailed: ",
		withAMQPJava.name: "com.rabbitmq.client.ShutdownSignalException: channel error; protocol method: #method<channel.close>(reply-code=406, ",
	}
	eachPeer(t, amqpPeers, func(t *testing.T, p peer) {
		topic := amqpTopic(t, amqpOpen(t, amqpOptions(t, b)), stagebus.TopicSpec{})
		r := p.try(t, "", "declare", pikaURL(t, b.URL()), topic)
		_, rest, ok := strings.Cut(r.err, says[p.name])
		if r.code == 0 || !ok || !strings.Contains(rest, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '"+topic+"'") {
			t.Errorf("got %+v, want %s", r, says[p.name])
		}
	})
}

var (
	rpcClient = pythonPeer("pika", "rpc_client.py")
	rpcServer = pythonPeer("pika", "rpc_server.py")
)

// Request and reply with the programs of pika's tutorial six: a ReplyTo that comes from them is a queue, and one for them is the bare name of one.
func TestInteropAMQPRequestReply(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	address := pikaURL(t, b.URL())
	bus := amqpOpen(t, amqpOptions(t, b))
	p := amqpProducer(t, bus, stagebus.ProducerOptions{})

	t.Run("they ask", func(t *testing.T) {
		topic := amqpTopic(t, bus, stagebus.TopicSpec{})
		client := rpcClient.start(t, address, topic, "20")
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{topic}})
		d := amqpReceive(t, c, 1)[0]
		if string(d.Body) != "20" || d.CorrelationID == "" || !strings.HasPrefix(d.ReplyTo, "amq.gen-") {
			t.Errorf("%+v", d)
		}
		reply := stagebus.Message{Topic: "queue:" + d.ReplyTo, CorrelationID: d.CorrelationID, Body: []byte("6765")}
		if err := stagebus.Send(amqpContext(t), p, reply); err != nil {
			t.Fatal(err)
		}
		amqpSettle(t, c, stagebus.Done, d)
		if got := client.next(t); got != "6765" {
			t.Errorf("pika got %q", got)
		}
		client.end(t)
	})
	t.Run("we ask", func(t *testing.T) {
		queue, replies := messageQueue(t, b), amqpTopic(t, bus, stagebus.TopicSpec{})
		server := rpcServer.start(t, address, queue)
		if line := server.next(t); line != "ready" {
			t.Fatal(line)
		}
		id := rand.Text()
		if err := stagebus.Send(amqpContext(t), p, stagebus.Message{Topic: queue, CorrelationID: id, ReplyTo: replies, Body: fmt.Append(nil, 20)}); err != nil {
			t.Fatal(err)
		}
		c := amqpConsumer(t, bus, stagebus.ConsumerOptions{Topics: []string{replies}})
		d := amqpReceive(t, c, 1)[0]
		if string(d.Body) != "6765" || d.CorrelationID != id {
			t.Errorf("%+v", d)
		}
		amqpSettle(t, c, stagebus.Done, d)
		server.end(t)
	})
}
