package dev

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// observe runs f before kfake answers a request of that kind. The answer stays kfake's. f runs one at a time and may ask the cluster.
func (b *Broker) observe(key kmsg.Key, f func(kmsg.Request)) {
	var control func(kmsg.Request) (kmsg.Response, error, bool)
	control = func(r kmsg.Request) (kmsg.Response, error, bool) {
		// Registered anew each time: kfake remembers the last request of each connection in a control for as long as that lives.
		b.cluster.DropControl()
		b.cluster.ControlKey(int16(key), control)
		f(r)
		return nil, nil, false
	}
	b.cluster.ControlKey(int16(key), control)
}

// CheckTopic tells whether Kafka would allow a name.
func CheckTopic(name string) error {
	if !topicName.MatchString(name) || name == "." || name == ".." {
		return errors.New("a topic's name is 1 to 249 of the characters a-z A-Z 0-9 . _ -")
	}
	return nil
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// onMetadata makes topics that are asked for. kfake can do that by itself, but doesn't write the topic down: after a kill
// its messages would be files that nobody looks for.
func (b *Broker) onMetadata(r kmsg.Request) {
	req := r.(*kmsg.MetadataRequest)
	if !b.options.AutoCreate || !req.AllowAutoTopicCreation && req.Version >= 4 {
		return
	}
	for _, t := range req.Topics {
		if t.Topic == nil || b.cluster.TopicInfo(*t.Topic) != nil {
			continue
		}
		if err := b.create(*t.Topic, 0); err != nil {
			b.log.to.Info(fmt.Sprintf("topic %q is not made: %v", *t.Topic, err)) // and the client hears that it is unknown
		}
	}
}

// onCreateTopics remembers names for retain.
func (b *Broker) onCreateTopics(r kmsg.Request) {
	for _, t := range r.(*kmsg.CreateTopicsRequest).Topics {
		b.topics.add(t.Topic)
	}
}

// create makes a topic that is on disk when it returns.
func (b *Broker) create(name string, partitions int) error {
	if err := CheckTopic(name); err != nil {
		return err
	}
	b.topics.add(name)
	err := b.cluster.CreateTopic(name, int32(partitions), nil) // 0: the default
	if errors.Is(err, kerr.InvalidTopicException) {
		return errors.New("a topic exists whose name differs in . and _ only")
	}
	return err
}

// onDeleteGroups writes down that the offsets of a group are gone. kfake forgets the group, but after a kill would read its
// offsets again, and a group that was deleted to begin anew would go on where it was.
func (b *Broker) onDeleteGroups(r kmsg.Request) {
	if b.dir == nil {
		return
	}
	for _, name := range r.(*kmsg.DeleteGroupsRequest).Groups {
		g := b.cluster.GroupInfo(name)
		if g == nil || len(g.Members) > 0 { // kfake refuses to delete it
			continue
		}
		var entries []byte
		for topic, partitions := range g.Commits {
			for p := range partitions {
				entries = appendEntry(entries, groupEntry{Type: "delete", Group: name, Topic: topic, Part: p})
			}
		}
		if err := appendFile(filepath.Join(b.dir.data(), "groups.log"), entries); err != nil {
			b.log.to.Error(fmt.Sprintf("group %q is deleted until the next kill only: %v", name, err))
		}
	}
}

// groupEntry is one entry of kfake's groups.log.
type groupEntry struct {
	Type   string `json:"type"`
	Group  string `json:"g"`
	Topic  string `json:"t,omitempty"`
	Part   int32  `json:"p,omitempty"`
	Offset int64  `json:"o,omitempty"`
}

// kfake's logs are entries of length, checksum, version and JSON; the length is that of the last two, the checksum over them.
const (
	entryHeader  = 8 // length and checksum
	entryVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendEntry(dst []byte, v any) []byte {
	body := binary.LittleEndian.AppendUint16(nil, entryVersion)
	j, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	body = append(body, j...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(body, castagnoli))
	return append(dst, body...)
}

// appendFile appends in one write, as kfake does to the same file.
func appendFile(name string, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
