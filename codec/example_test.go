package codec_test

import (
	"errors"
	"fmt"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/json"
)

type Sample struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

func Example() {
	c := json.Codec[Sample]{}
	m := stagebus.Message{Topic: "llm.samples"}
	if err := codec.Encode(c, Sample{1, "Hello World"}, &m); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.ContentType, string(m.Body))

	s, err := codec.Decode(c, &m) // of a delivery d: &d.Message
	fmt.Println(s.Text, err)
	// Output:
	// application/json {"id":1,"text":"Hello World"}
	// Hello World <nil>
}

func ExampleDecode() {
	m := stagebus.Message{ContentType: "image/png", Body: []byte("\x89PNG")}
	_, err := codec.Decode(json.Codec[Sample]{}, &m)
	fmt.Println(errors.Is(err, codec.ErrContentType), err)
	// Output: true decode application/json: another content type: "image/png"
}
