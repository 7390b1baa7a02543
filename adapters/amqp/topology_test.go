package amqp

import (
	"errors"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

func testConfig(t *testing.T, o Options) *config {
	t.Helper()
	c, err := o.resolve()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlaceOf(t *testing.T) {
	c := testConfig(t, Options{})
	for _, x := range []struct {
		topic, group, queue string
		foreign             bool
		err                 error
	}{
		{"t", "", "t", false, nil},
		{"t", "default", "t", false, nil},
		{"t", "g", "t--g", false, nil},
		{"t--g--dlq", "", "t--g--dlq", false, nil},
		{"queue:my queue", "", "my queue", true, nil},
		{"queue:q", "g", "", false, stagebus.ErrUnsupported},
		{"topic:t", "", "", false, stagebus.ErrUnsupported},
		{strings.Repeat("t", 249), "grouped", "", false, stagebus.ErrInvalid},
	} {
		p, err := c.placeOf("consume", x.topic, x.group)
		if !errors.Is(err, x.err) || x.err == nil && (p.queue != x.queue || p.foreign != x.foreign) {
			t.Errorf("%s %s: %+v, %v", x.topic, x.group, p, err)
		}
	}
}

func TestManagedQueueTopic(t *testing.T) {
	for _, c := range []struct {
		q           managedQueue
		name, group string
		ok          bool
	}{
		{managedQueue{Name: "t.a"}, "t.a", "default", true},
		{managedQueue{Name: "t--g"}, "t", "g", true},
		{managedQueue{Name: "t--g--dlq"}, "t--g--dlq", "default", true},
		{managedQueue{Name: "t--g--dlq--h"}, "t--g--dlq", "h", true},
		{managedQueue{Name: "t--g--retry-100"}, "", "", false},
		{managedQueue{Name: "amq.gen-x"}, "", "", false},
		{managedQueue{Name: "t", Exclusive: true}, "", "", false},
		{managedQueue{Name: "my queue"}, "queue:my queue", "default", true},
		{managedQueue{Name: "queue:odd"}, "queue:queue:odd", "default", true},
		{managedQueue{Name: "a--b--c"}, "queue:a--b--c", "default", true},
	} {
		name, group, ok := c.q.topic()
		if name != c.name || group != c.group || ok != c.ok {
			t.Errorf("%+v: %q %q %v", c.q, name, group, ok)
		}
	}
	for queue, want := range map[string]string{"t": "default", "t--g": "g", "t--g--dlq": "", "tt": "", "t--": ""} {
		if g, ok := groupOf(queue, "t"); g != want || ok != (want != "") {
			t.Errorf("%s: %q %v", queue, g, ok)
		}
	}
}
