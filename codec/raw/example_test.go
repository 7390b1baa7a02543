package raw_test

import (
	"fmt"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/codec"
	"github.com/stagebus/stagebus/codec/raw"
)

func ExampleText() {
	var m stagebus.Message
	err := codec.Encode(raw.Text{}, "Hello World", &m)
	fmt.Printf("%s: %s %v\n", m.ContentType, m.Body, err)
	// Output: text/plain; charset=utf-8: Hello World <nil>
}

func ExampleBytes() {
	m := stagebus.Message{ContentType: "image/png", Body: []byte("\x89PNG")}
	b, err := codec.Decode(raw.Bytes{}, &m) // whatever the content type
	fmt.Printf("%q %v\n", b, err)
	// Output: "\x89PNG" <nil>
}
