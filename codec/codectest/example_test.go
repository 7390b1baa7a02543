package codectest_test

import (
	"bytes"
	"fmt"

	"github.com/stagebus/stagebus/codec/codectest"
	"github.com/stagebus/stagebus/codec/raw"
)

func ExampleCheck() {
	err := codectest.Check[[]byte](raw.Bytes{}, bytes.Equal, nil, []byte{}, make([]byte, 1<<10))
	fmt.Println(err)
	// Output: <nil>
}
