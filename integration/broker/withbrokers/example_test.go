package main

import "context"

// Example runs a command that finds the brokers in its environment.
func Example() {
	code := run(context.Background(), []string{"sh", "-c", "stagebus topics list --broker $STAGEBUS_TEST_KAFKA_URL"})
	_ = code // the command's
}
