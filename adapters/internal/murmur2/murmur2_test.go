package murmur2_test

import (
	"fmt"
	"testing"

	"github.com/stagebus/stagebus/adapters/internal/murmur2"
)

func ExamplePartition() {
	fmt.Println(murmur2.Partition([]byte("user-7"), 6))
	// Output: 2
}

// The values are those of Kafka's own UtilsTest.
func TestSum(t *testing.T) {
	for in, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107, "": 275646681,
	} {
		if got := int32(murmur2.Sum([]byte(in))); got != want {
			t.Errorf("Sum(%q) is %d, want %d", in, got, want)
		}
	}
}

func TestPartition(t *testing.T) {
	// -973932308: the sign must go, as in Java's toPositive.
	if got, want := murmur2.Partition([]byte("21"), 1000), int32((-973932308&0x7fffffff)%1000); got != want {
		t.Errorf("partition %d, want %d", got, want)
	}
	for n := 1; n < 50; n++ {
		if p := murmur2.Partition([]byte{byte(n)}, n); p < 0 || int(p) >= n {
			t.Fatalf("partition %d of %d", p, n)
		}
	}
}
