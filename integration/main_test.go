package integration

import (
	"os"
	"testing"

	"github.com/stagebus/stagebus/integration/broker"
)

// TestMain lets the test binary serve as the member of a group that tests kill and freeze; see member_test.go.
func TestMain(m *testing.M) {
	if url := os.Getenv(envMember); url != "" {
		os.Exit(runMember(url))
	}
	os.Exit(broker.Main(m))
}
