package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Kafka user who may only look at one topic learns what is not permitted, as text and as JSON.
func TestGoldenKafkaPermission(t *testing.T) {
	may := func(resource kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "seen", "hidden"), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "hunter2"),
		kfake.User("PLAIN", "app", "hunter2", may(kmsg.ACLResourceTypeTopic, "seen", kmsg.ACLOperationDescribe)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	host := c.ListenAddrs()[0]
	runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": "kafka://admin:hunter2@" + host}, "publish", "--topic", "seen", "-q", "hello").want(t, exitOK, "", "")
	var got bytes.Buffer
	for _, line := range []string{
		"publish --topic seen hello",
		"publish --topic hidden hello",
		"consume --topic seen --idle 2s",
		"consume --topic hidden",
		"consume --topic seen --group g",
		"topics declare new",
		"topics delete seen --yes",
	} {
		fmt.Fprintf(&got, "$ %s\n", line)
		for _, output := range []string{"text", "json"} {
			r := runWith(t.Context(), "", map[string]string{"STAGEBUS_BROKER": "kafka://app:hunter2@" + host}, append([]string{"--output", output}, strings.Fields(line)...)...)
			r.check(t, exitFailure, output)
			r.err = attempts.ReplaceAllString(strings.ReplaceAll(r.err, host, "HOST"), "")
			streamLines(&got, output, "out", r.out)
			streamLines(&got, output, "err", r.err)
		}
		got.WriteByte('\n')
	}
	compareGolden(t, filepath.Join("testdata", "golden", "1-kafka-permission.golden"), got.Bytes())
}

// attempts is told or not, depending on when the consumer first fails.
var attempts = regexp.MustCompile(`(?m)^.*trying again.*\n`)

// compareGolden compares with a file, or writes it with -update.
func compareGolden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (-update writes it):\n%s", file, difference(string(got), string(want)))
	}
}
