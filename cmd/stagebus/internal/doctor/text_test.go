package doctor

import (
	"encoding/json"
	"testing"
	"time"
)

var sample1 = Report{Broker: "kafka://h:9092", Steps: []Step{
	{Name: stepResolve, Target: "h", Status: OK, Took: 1200 * time.Microsecond, Detail: "h is 192.0.2.7"},
	{Name: stepTCP, Target: "h:9092", Status: Warn, Took: 15 * time.Millisecond, Detail: "192.0.2.7:9092 answers", Cause: "it is far", Do: "come nearer"},
	{Name: stepListener, Target: "k:1", Status: Fail, Took: 5 * time.Second, Cause: "it is gone", Do: "bring it back"},
	{Name: stepDeclare, Status: Skip, Detail: notReached},
	{Name: stepRoundTrip, Status: Skip, Detail: notReached},
	{Name: stepClock, Status: Skip, Detail: "no clock"},
}}

func TestText(t *testing.T) {
	for name, c := range map[string]struct {
		style Style
		want  string
	}{
		"ASCII": {Style{}, `kafka://h:9092
  ok   resolve     1.2 ms  h is 192.0.2.7
  WARN tcp          15 ms  192.0.2.7:9092 answers
      cause: it is far
      do:    come nearer
  FAIL listener     5.0 s  k:1
      cause: it is gone
      do:    bring it back
  skip declare, round trip: not reached
  skip clock: no clock
`},
		"colour": {Style{UTF8: true, Colour: true}, "kafka://h:9092\n" +
			"  \x1b[32m✓\x1b[0m resolve     1.2 ms  h is 192.0.2.7\n" +
			"  \x1b[33m!\x1b[0m tcp          15 ms  192.0.2.7:9092 answers\n      cause: it is far\n      do:    come nearer\n" +
			"  \x1b[31m✗\x1b[0m listener     5.0 s  k:1\n      cause: it is gone\n      do:    bring it back\n" +
			"  \x1b[2m-\x1b[0m declare, round trip: not reached\n  \x1b[2m-\x1b[0m clock: no clock\n"},
	} {
		if got := sample1.Text(c.style); got != c.want {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestRecord(t *testing.T) {
	got, err := json.Marshal(sample1.Record())
	want := `{"broker":"kafka://h:9092","status":"fail","steps":[` +
		`{"name":"resolve","target":"h","status":"ok","ms":1.2,"detail":"h is 192.0.2.7"},` +
		`{"name":"tcp","target":"h:9092","status":"warn","ms":15,"detail":"192.0.2.7:9092 answers","cause":"it is far","do":"come nearer"},` +
		`{"name":"listener","target":"k:1","status":"fail","ms":5000,"cause":"it is gone","do":"bring it back"},` +
		`{"name":"declare","status":"skip","ms":0,"detail":"not reached"},` +
		`{"name":"round trip","status":"skip","ms":0,"detail":"not reached"},` +
		`{"name":"clock","status":"skip","ms":0,"detail":"no clock"}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}
