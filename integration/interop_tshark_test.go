package integration

import (
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/integration/broker"
)

// field is one line of what tshark shows of a packet.
type field struct {
	name, label string // such as amqp.method.arguments.exchange, "Exchange: stagebus"
	bytes       []byte
}

// onTheWire sends m until tshark, which listens on the loopback interface, has shown a packet with the topic in the field topic and a body in the
// field body, and returns what it has shown from the topic on. Each try has a connection of its own, since a conversation is understood from
// its beginning, and the first may come before tshark listens.
func onTheWire(t *testing.T, b *broker.Broker, protocol string, m stagebus.Message, topic, body string) []field {
	t.Helper()
	needCommand(t, "tshark")
	host, port, err := net.SplitHostPort(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		t.Skipf("the broker is at %s, not on this machine", host)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "tshark", "-i", "lo", "-f", "tcp port "+port, "-d", "tcp.port=="+port+","+protocol,
		"-Y", fmt.Sprintf("%s == %q && %s", topic, m.Topic, body), "-T", "pdml", "-l") // others use the broker as well
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it has a child of its own to end
	c.WaitDelay = 10 * time.Second
	var errs strings.Builder
	c.Stderr, c.Env = &errs, append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan []field, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fields, e := look(out, topic)
		if e == nil {
			found <- fields
			_, e = io.Copy(io.Discard, out)
		}
		err = errors.Join(e, c.Wait())
	}()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		sendOnce(t, b, m)
		select {
		case fields := <-found:
			cancel()
			<-ended
			return fields
		case <-ended:
			if strings.Contains(errs.String(), "permission") {
				t.Skipf("tshark may not capture here, root may: %s", &errs)
			}
			t.Fatalf("tshark: %v: %s", err, &errs)
		case <-again.C:
		}
	}
}

func sendOnce(t *testing.T, b *broker.Broker, m stagebus.Message) {
	t.Helper()
	bus, err := adapters.Open(t.Context(), b.URL(), adapters.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := bus.Producer(t.Context(), stagebus.ProducerOptions{})
	if err == nil {
		err = stagebus.Send(t.Context(), p, m)
	}
	if err := errors.Join(err, bus.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// look reads one packet of tshark's XML, from the field begin on.
func look(in io.Reader, begin string) (fs []field, err error) {
	for dec := xml.NewDecoder(in); ; {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch e := token.(type) {
		case xml.EndElement:
			if e.Name.Local == "packet" {
				return fs, nil
			}
		case xml.StartElement:
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			f := field{name: attr["name"], label: attr["showname"]}
			f.bytes, _ = hex.DecodeString(attr["value"]) // some have none of their own
			if f.name == begin || fs != nil {
				fs = append(fs, f)
			}
		}
	}
}

// labels returns those of the fields whose names have the prefix.
func labels(fs []field, prefix string) (ls []string) {
	for _, f := range fs {
		if strings.HasPrefix(f.name, prefix) {
			ls = append(ls, f.label)
		}
	}
	return ls
}

func sniffed(topic string) stagebus.Message {
	return stagebus.Message{
		Topic: topic, Key: []byte("user-7"), Body: []byte(document), Time: time.Date(2021, 7, 5, 19, 18, 51, 0, time.UTC),
		Headers: stagebus.Headers{{Key: "tag", Value: "a"}, {Key: "tag", Value: "b"}, {Key: "zone", Value: "eu"}},
		ID:      "0199", Source: "/stage/preprocess", Type: "tokens", ContentType: "application/json", CorrelationID: "req-1", ReplyTo: "replies", Priority: 3,
	}
}

// tshark, which knows AMQP 0.9.1, shows every part of a message by its name.
func TestInteropTsharkAMQP(t *testing.T) {
	b := broker.Require(t, broker.AMQP)
	topic := amqpTopic(t, amqpOpen(t, amqpOptions(t, b)), stagebus.TopicSpec{})
	shown := onTheWire(t, b, "amqp", sniffed(topic), "amqp.method.arguments.routing_key", "amqp.payload")
	got := append(labels(shown, "amqp.method."), labels(shown, "amqp.field")...)
	want := []string{
		"Routing-Key: " + topic, ".... ...1 = Mandatory: True", ".... ..0. = Immediate: False",
		"Content-Type: application/json", "Headers", "Delivery-Mode: 2", "Priority: 3", "Correlation-Id: req-1", "Reply-To: replies", "Message-Id: 0199",
		"Timestamp: Jul  5, 2021 19:18:51.000000000 UTC", "Type: tokens",
		"cloudEvents_correlationid (string): req-1", "cloudEvents_id (string): 0199", "cloudEvents_partitionkey (string): user-7",
		"cloudEvents_source (string): /stage/preprocess", "cloudEvents_specversion (string): 1.0", "cloudEvents_time (string): 2021-07-05T19:18:51Z",
		"cloudEvents_type (string): tokens", "tag (array)", "[0] (string): a", "[1] (string): b", "zone (string): eu",
	}
	if i := slices.IndexFunc(shown, func(f field) bool { return f.name == "amqp.payload" }); i < 0 || string(shown[i].bytes) != document {
		t.Errorf("no such body in %q", shown)
	}
	// The content type tells it to look into the body.
	if got := labels(shown, "json.value."); !slices.Equal(got, []string{"Number value: 1", "String value: Hello World", "Number value: 1625512731"}) {
		t.Errorf("in the body it saw %q", got)
	}
	slices.Sort(got) // a table has no order
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// And Kafka's protocol.
func TestInteropTsharkKafka(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	topic := kafkaTopic(t, kafkaShared(t, nil), 1)
	shown := onTheWire(t, b, "kafka", sniffed(topic), "kafka.topic_name", "kafka.message_value")
	var got []string
	for _, prefix := range []string{"kafka.batch_codec", "kafka.batch_size", "kafka.message_timestamp", "kafka.message_key", "kafka.message_value", "kafka.header_"} {
		got = append(got, labels(shown, prefix)...)
	}
	want := []string{
		".... .... .... .000 = Compression Codec: None (0)", "Size: 1", "Timestamp: Jul  5, 2021 19:18:51.000000000 UTC", `Key: "user-7"`, `Value: "` + document + `"`,
	}
	for _, h := range [][2]string{
		{"ce_specversion", "1.0"}, {"ce_id", "0199"}, {"ce_source", "/stage/preprocess"}, {"ce_type", "tokens"}, {"ce_time", "2021-07-05T19:18:51Z"},
		{"content-type", "application/json"}, {"ce_correlationid", "req-1"}, {"ce_replyto", "replies"}, {"ce_priority", "3"}, {"tag", "a"}, {"tag", "b"}, {"zone", "eu"},
	} {
		want = append(want, "Header Key: "+h[0], `Header Value: "`+h[1]+`"`)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
