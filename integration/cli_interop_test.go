package integration

import (
	"net/url"
	"testing"

	"github.com/stagebus/stagebus/integration/broker"
)

// cliDocument is the message that everybody sends first.
const cliDocument = `{"id": 1, "text": "Hello World", "timestamp": 1625512731}`

// The programs of the peers, as their own tutorials write them. Bodies are bytes on standard input and output.
const (
	pikaPublish = `
import sys, pika
url, queue, durable = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue=queue, durable=durable == 'durable')
channel.basic_publish(exchange='', routing_key=queue, body=sys.stdin.buffer.read())
connection.close()
`
	pikaDeclare = `
import sys, pika
url, queue, durable = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
connection.channel().queue_declare(queue=queue, durable=durable == 'durable')
connection.close()
`
	pikaConsume = `
import sys, pika
url, queue = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
for method, properties, body in channel.consume(queue, inactivity_timeout=20):
    assert method is not None, 'nothing came'
    assert not properties.headers, properties.headers
    assert properties.content_type is None and properties.message_id is None, properties
    sys.stdout.buffer.write(body)
    channel.basic_ack(method.delivery_tag)
    break
connection.close()
`
	pikaDelete = `
import sys, pika
url, queue = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
connection.channel().queue_delete(queue)
connection.close()
`
	kafkaPublish = `
import sys, kafka
servers, topic = sys.argv[1:]
producer = kafka.KafkaProducer(bootstrap_servers=servers)
producer.send(topic, sys.stdin.buffer.read()).get(timeout=30)
producer.close()
`
	kafkaConsume = `
import sys, kafka
servers, topic = sys.argv[1:]
consumer = kafka.KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset='earliest', enable_auto_commit=False, consumer_timeout_ms=30000)
for record in consumer:
    assert not record.headers and record.key is None, record
    sys.stdout.buffer.write(record.value)
    break
consumer.close()
`
)

func TestCLIWithPika(t *testing.T) {
	const queue = "message_queue"
	b := broker.Require(t, broker.AMQP)
	for _, durable := range []string{"transient", "durable"} {
		t.Run(durable, func(t *testing.T) {
			peer := pikaURL(t, b.URL())
			python(t, pikaDelete, "", peer, queue)
			defer python(t, pikaDelete, "", peer, queue)

			python(t, pikaPublish, cliDocument, peer, queue, durable)
			if got := cliOK(t, "", "", "consume", "--broker", b.URL(), "--topic", queue, "-n", "1", "--format", "raw"); got != cliDocument+"\n" {
				t.Errorf("stagebus printed %q", got)
			}
			// What was printed is gone.
			if r := cli(t, b.URL(), "", "consume", "--topic", queue, "-n", "1", "-q"); r.code != 3 || r.out != "" {
				t.Errorf("%+v", r)
			}

			python(t, pikaDelete, "", peer, queue)
			python(t, pikaDeclare, "", peer, queue, durable)
			cliOK(t, "", "", "publish", "--broker", b.URL(), "--topic", queue, cliDocument)
			if got := python(t, pikaConsume, "", peer, queue); got != cliDocument {
				t.Errorf("pika got %q", got)
			}
			// pika may go on declaring its queue: we have not changed it.
			python(t, pikaDeclare, "", peer, queue, durable)
		})
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

func TestCLIWithKafkaPython(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	topic := cliTopic(t, b)
	python(t, kafkaPublish, cliDocument, b.Addr(), topic)
	if got := cliOK(t, "", "", "consume", "--broker", b.URL(), "--topic", topic, "-n", "1", "--format", "raw"); got != cliDocument+"\n" {
		t.Errorf("stagebus printed %q", got)
	}

	other := cliTopic(t, b)
	cliOK(t, "", "", "publish", "--broker", b.URL(), "--topic", other, cliDocument)
	if got := python(t, kafkaConsume, "", b.Addr(), other); got != cliDocument {
		t.Errorf("kafka-python got %q", got)
	}
}
