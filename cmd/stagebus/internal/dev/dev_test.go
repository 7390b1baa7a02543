package dev

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Everything a client was told is done holds after a kill: a topic that it made or that was made for it, messages, settings.
func TestKilled(t *testing.T) {
	o := options(t)
	o.Topics = []Topic{{Name: "seeded", Partitions: 3}, {Name: "default"}}
	o.Partitions = 2
	b := open(t, o)
	bus := connect(t, b)
	send(t, bus, "declared", 0, 5)
	if err := bus.Admin().Declare(t.Context(), stagebus.TopicSpec{Name: "large", Config: map[string]string{"max.message.bytes": "5000000"}}); err != nil {
		t.Fatal(err)
	}
	auto := kmsg.NewPtrMetadataRequest()
	auto.AllowAutoTopicCreation = true
	for _, name := range []string{"auto", "no/name", ".."} {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		auto.Topics = append(auto.Topics, topic)
	}
	if _, err := auto.RequestWith(t.Context(), client(t, b)); err != nil {
		t.Fatal(err)
	}

	o = crash(t, o)
	o.Topics = []Topic{{Name: "seeded", Partitions: 7}} // it exists, and stays
	b = open(t, o)
	if r := b.Repairs(); !r.Killed || r.Torn != 0 {
		t.Errorf("%+v", r)
	}
	for topic, want := range map[string]int{"seeded": 3, "default": 2, "declared": 2, "large": 2, "auto": 2, "no/name": 0, "..": 0} {
		if n := len(b.cluster.PartitionInfos(topic)); n != want {
			t.Errorf("topic %q has %d partitions, not %d", topic, n, want)
		}
	}
	if v := b.cluster.TopicInfo("large").Configs["max.message.bytes"]; v == nil || *v != "5000000" {
		t.Errorf("max.message.bytes is lost: %v", v)
	}
	infos := b.cluster.PartitionInfos("declared")
	if n := infos[0].HighWatermark + infos[1].HighWatermark; n != 5 {
		t.Errorf("%d messages of 5", n)
	}
}

func TestStoppedInOrder(t *testing.T) {
	o := options(t)
	b := open(t, o)
	bus := connect(t, b)
	send(t, bus, "t", 0, 5)
	hangUp(t, bus)
	shut(t, b)
	shut(t, b) // again
	b = open(t, o)
	if r := b.Repairs(); r.Killed {
		t.Errorf("%+v", r)
	}
	if got := bodies(t, b, "t"); !reflect.DeepEqual(got, numbers(0, 5)) {
		t.Errorf("there is %v", got)
	}
}

// What couldn't be written at the end is no end in order: the next one reads everything through, as after a kill.
func TestStoppedUnwritten(t *testing.T) {
	o := options(t)
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	bus := connect(t, b)
	send(t, bus, "t", 0, 5)
	hangUp(t, bus)
	obstacle := filepath.Join(b.dir.data(), "topics.json.tmp") // where kfake writes first
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err == nil {
		t.Fatal("nothing stood in the way")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	if r := b.Repairs(); !r.Killed || r.Partitions != 1 {
		t.Errorf("%+v", r)
	}
	if got := bodies(t, b, "t"); !reflect.DeepEqual(got, numbers(0, 5)) {
		t.Errorf("there is %v", got)
	}
}

func TestEphemeral(t *testing.T) {
	o := options(t)
	dir := o.Dir
	o.Dir = ""
	b := open(t, o)
	send(t, connect(t, b), "t", 0, 3)
	if got := bodies(t, b, "t"); len(got) != 3 {
		t.Errorf("there is %v", got)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestAutoCreateOff(t *testing.T) {
	o := options(t)
	o.AutoCreate = false
	b := open(t, o)
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = true
	topic := kmsg.NewMetadataRequestTopic()
	name := "t"
	topic.Topic = &name
	req.Topics = append(req.Topics, topic)
	if _, err := req.RequestWith(t.Context(), client(t, b)); err != nil {
		t.Fatal(err)
	}
	if b.cluster.TopicInfo("t") != nil {
		t.Error("the topic was made")
	}
}

func TestDirectoryInUse(t *testing.T) {
	o := options(t)
	b := open(t, o)
	_, err := Open(o)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.Dir != o.Dir || !strings.Contains(inUse.Owner, b.Address()) {
		t.Errorf("got %v", err)
	}
	send(t, connect(t, b), "t", 0, 1) // the first is not disturbed
	shut(t, b)
	if r := open(t, o).Repairs(); r.Killed {
		t.Error("the attempt left a mark")
	}
}

func TestDirectoryOfOthers(t *testing.T) {
	o := options(t)
	o.Dir = t.TempDir()
	file := filepath.Join(o.Dir, "thesis.txt")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(o)
	var foreign *ForeignError
	if !errors.As(err, &foreign) || foreign.Dir != o.Dir {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(o.Dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestDefaultDir(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/stagebus/dev"},
		{map[string]string{"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/stagebus/dev"},
		{map[string]string{"HOME": "/h"}, "/h/.local/state/stagebus/dev"},
		{nil, ""},
	} {
		got, err := DefaultDir(func(k string) string { return c.env[k] })
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%v: got %q, %v", c.env, got, err)
		}
	}
}

func TestAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	for _, c := range []struct {
		listen, advertise string
		want              error
	}{
		{"0.0.0.0:0", "", ErrExposed},
		{":0", "", ErrExposed},
		{taken.Addr().String(), "", syscall.EADDRINUSE},
		{"127.0.0.1:http-nothing", "", nil},
		{"127.0.0.1", "", nil},
		{"127.0.0.1:9092", "h:0", nil},
		{"127.0.0.1:0", "h:70000", nil},
		{"127.0.0.1:0", ":1", nil},
	} {
		o := options(t)
		o.Listen, o.Advertise = c.listen, c.advertise
		b, err := Open(o)
		var address *AddressError
		if !errors.As(err, &address) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%q, %q: got %v", c.listen, c.advertise, err)
		}
		if err == nil {
			shut(t, b)
		}
	}
}

func TestAdvertise(t *testing.T) {
	for advertise, host := range map[string]string{"broker.example:7": "broker.example:7", "broker.example": "broker.example:", "127.0.0.1:0": "127.0.0.1:"} {
		o := options(t)
		o.Listen, o.Advertise = "0.0.0.0:0", advertise
		b := open(t, o)
		if !strings.HasPrefix(b.Address(), host) || strings.HasSuffix(b.Address(), ":0") {
			t.Errorf("%q: %s", advertise, b.Address())
		}
	}
}

// Whoever speaks something else is cut off; the others don't notice.
func TestForeignProtocols(t *testing.T) {
	b := open(t, options(t))
	bus := connect(t, b)
	send(t, bus, "t", 0, 1)
	for _, junk := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "AMQP\x00\x00\x09\x01",
		"\x00\x00\x00\x0a\x3f\x3f\x00\x00\x00\x00\x00\x00\x00\x00", // request 16191
		"\x00\x00\x00\x02\x00\x03",                                 // too short to be one
	} {
		c, err := net.Dial("tcp", b.Address())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(junk)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %d bytes, %v", junk, n, err)
		}
		c.Close() //nolint:errcheck // the other end has closed it
	}
	send(t, bus, "t", 1, 1)
}

func TestMaxBytes(t *testing.T) {
	o := options(t)
	o.MaxBytes = MinBytes - 1
	if b, err := Open(o); err == nil {
		shut(t, b)
		t.Error("too little is refused")
	}
}
