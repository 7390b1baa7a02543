package main

import (
	"os"
	"strings"
)

// Example reports what go test -json has said of one package.
func Example() {
	r := newReport(os.Stdout)
	_ = read(r, strings.NewReader(`{"Action":"output","Package":"m","Test":"TestGood","Output":"nobody reads this\n"}
{"Action":"pass","Package":"m","Test":"TestGood"}
{"Action":"output","Package":"m","Test":"TestAway","Output":"    m_test.go:7: no broker\n"}
{"Action":"skip","Package":"m","Test":"TestAway"}
{"Action":"output","Package":"m","Output":"ok  \tm\t0.1s\n"}
{"Action":"pass","Package":"m","Elapsed":0.1}
`))
	r.summary()
	// Output:
	// 0.1 s  m: 1 passed, 1 skipped
	//
	// skipped: 1
	//   no broker
	//       m TestAway
	//
	// ok  	m	0.1s
}
