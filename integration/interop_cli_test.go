package integration

import (
	"testing"

	"github.com/stagebus/stagebus/integration/broker"
)

// The command exchanges the document with programs that others wrote, both ways.

var kafkaProgram = pythonPeer("kafka-python", "document_kafka.py")

func TestCLIWithKafkaPython(t *testing.T) {
	b := broker.Require(t, broker.Kafka)
	topic := cliTopic(t, b)
	kafkaProgram.run(t, "", "send", b.Addr(), topic)
	if got := cliOK(t, "", "", "consume", "--broker", b.URL(), "--topic", topic, "-n", "1", "--format", "raw"); got != document+"\n" {
		t.Errorf("stagebus printed %q", got)
	}

	other := cliTopic(t, b)
	cliOK(t, "", "", "publish", "--broker", b.URL(), "--topic", other, document)
	if got := kafkaProgram.run(t, "", "receive", b.Addr(), other); got != documentSeen {
		t.Errorf("kafka-python got %q", got)
	}
}
