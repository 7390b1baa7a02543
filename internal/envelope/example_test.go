package envelope_test

import (
	"fmt"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/internal/envelope"
)

func ExampleEncodeKafka() {
	m := stagebus.Message{
		ID: "42", Source: "/stage/tokenise", Type: "io.example.tokens.v1", ContentType: "application/json",
		Headers: stagebus.Headers{{Key: "zone", Value: "eu"}},
	}
	envelope.EncodeKafka(&m, envelope.Meta{}, func(name, value string) { fmt.Println(name+":", value) })
	// Output:
	// ce_specversion: 1.0
	// ce_id: 42
	// ce_source: /stage/tokenise
	// ce_type: io.example.tokens.v1
	// content-type: application/json
	// zone: eu
}

// What pika sends has native properties and nothing else.
func ExampleDecodeAMQP() {
	m := stagebus.Message{Body: []byte(`{"id": 1}`)}
	_, err := envelope.DecodeAMQP(&m, envelope.Properties{MessageID: "42", ContentType: "application/json"})
	fmt.Println(m.ID, m.ContentType, err)
	// Output: 42 application/json <nil>
}
