package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
)

func TestTopics(t *testing.T) {
	w := newWorld(t)
	w.run("", "topics", "list").want(t, exitOK, "", "")
	w.run("", "topics", "declare", "b", "--partitions", "2", "--group", "g").want(t, exitOK, "", "")
	w.run("", "topics", "declare", "a").want(t, exitOK, "", "")
	w.run("", "topics", "declare", "a").want(t, exitOK, "", "")
	w.run("", "topics", "list").want(t, exitOK, "a  topic\nb  topic\n", "")
	w.run("", "topics", "declare", "a", "--partitions", "3").want(t, exitFailure, "", "exists with other properties")

	w.run("", "publish", "--topic", "b", "--partition", "1", "-q", "x").want(t, exitOK, "", "")
	w.run("", "topics", "describe", "b").want(t, exitOK,
		"b (topic)\n  partition 0    first 0  next 0\n  partition 1    first 0  next 1\n  group default  depth 1  members 0\n  group g        depth 1  members 0\n", "")
	w.run("", "topics", "describe", "b", "--output", "json").want(t, exitOK,
		`{"name":"b","kind":"topic","partitions":[{"id":0,"first":0,"next":0},{"id":1,"first":0,"next":1}],"groups":[{"name":"default","depth":1,"members":0},{"name":"g","depth":1,"members":0}]}`+"\n", "")
	w.run("", "topics", "describe", "none").want(t, exitFailure, "", `"none"`)

	w.run("", "topics", "delete", "b").want(t, exitUsage, "", `would delete "b": 1 messages, group default with 1 unsettled, group g with 1 unsettled`)
	w.run("", "topics", "delete", "b", "-q").want(t, exitUsage, "", "stagebus: nothing was deleted: add --yes\n")
	w.run("", "topics", "delete", "b", "--yes").want(t, exitOK, "", "")
	w.run("", "topics", "delete", "b", "--yes").want(t, exitFailure, "", "not found")
	w.run("", "topics", "list", "--output", "json").want(t, exitOK,
		`{"name":"a","kind":"topic","partitions":[{"id":0,"first":0,"next":0}],"groups":[{"name":"default","depth":0,"members":0}]}`+"\n", "")
}

func TestEventsAreTold(t *testing.T) {
	for _, c := range []struct {
		e    stagebus.Event
		want string
	}{
		{stagebus.Event{Kind: stagebus.EventDisconnected, Broker: "b", Err: os.ErrClosed}, "stagebus: connection to b lost, reconnecting: file already closed\n"},
		{stagebus.Event{Kind: stagebus.EventBlocked, Broker: "b", Err: os.ErrClosed}, "stagebus: b takes no messages for now: file already closed\n"},
		{stagebus.Event{Kind: stagebus.EventUnblocked, Broker: "b"}, "stagebus: b takes messages again\n"},
		{stagebus.Event{Kind: stagebus.EventMissing, Broker: "b", Topic: "t"}, "stagebus: \"t\" has vanished from b, waiting for it\n"},
		{stagebus.Event{Kind: stagebus.EventError, Broker: "b", Topic: "t", Err: os.ErrClosed}, "stagebus: trying again: file already closed\n"},
		{stagebus.Event{Kind: stagebus.EventAssigned}, ""},
	} {
		for _, quiet := range []bool{false, true} {
			errs := newBuffer()
			p := &program{streams: streams{err: errs}, quiet: quiet}
			p.hook(stagebus.Event{Kind: stagebus.EventError, Err: os.ErrInvalid}) // held: no messages flow yet
			p.flow()
			p.hook(c.e)
			want := c.want
			if quiet {
				want = ""
			}
			if errs.String() != want {
				t.Errorf("%s: got %q, want %q", c.e.Kind, errs, want)
			}
		}
	}
}

func TestEventsOfQuestionsAreToldWithTheAnswer(t *testing.T) {
	errs := newBuffer()
	p := &program{streams: streams{err: errs}}
	for range 2 * maxHeld {
		p.hook(stagebus.Event{Kind: stagebus.EventConnected})
	}
	if len(p.events.held) != maxHeld {
		t.Errorf("%d are held", len(p.events.held))
	}
	p.events.held = p.events.held[:1]
	p.hook(stagebus.Event{Kind: stagebus.EventError, Err: os.ErrInvalid})
	p.tellHeld(incomplete)
	if got, want := errs.String(), "stagebus: this may not be all: invalid argument\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Example publishes two lines and prints them back.
func Example() {
	broker := openMemory("example")
	defer broker.Close(context.Background()) //nolint:errcheck // memory
	s := streams{
		in: strings.NewReader("{\"id\": 1}\n{\"id\": 2}\n"), out: os.Stdout, err: os.Stderr,
		getenv: brokerAt("memory://example"),
	}
	run(context.Background(), []string{"publish", "--create", "--topic", "prompts", "--quiet"}, s)
	run(context.Background(), []string{"consume", "--topic", "prompts", "--quiet"}, s)
	// Output:
	// {"id": 1}
	// {"id": 2}
}
