package json_test

import (
	"fmt"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/json"
)

type Prompt struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

func ExampleCodec() {
	m := stagebus.Message{Body: []byte(`{"id": 1, "text": "Hello World", "timestamp": 1625512731}`)} // from pika: no content type
	p, err := codec.Decode(json.Codec[Prompt]{}, &m)
	fmt.Println(p, err)

	m.Body = []byte(`{"id": 1, "id": 2}`)
	_, err = codec.Decode(json.Codec[Prompt]{}, &m)
	fmt.Println(err)
	// Output:
	// {1 Hello World} <nil>
	// decode application/json: at byte 10: the object has this name twice
}
