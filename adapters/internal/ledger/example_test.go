package ledger_test

import (
	"fmt"

	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// Offsets 7 to 9 are delivered and settled in another order: what may be committed is the prefix.
func Example() {
	l := ledger.New[string]()
	a, _ := l.Add(8, 1, "a")
	b, _ := l.Add(9, 1, "b")
	c, _ := l.Add(10, 1, "c")
	for _, seq := range []int64{b, a, c} {
		l.Settle(seq)
		mark, moved := l.Mark()
		fmt.Println(mark, moved)
	}
	// Output:
	// 0 false
	// 9 true
	// 10 true
}
