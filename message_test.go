package stagebus

import (
	"reflect"
	"regexp"
	"testing"
	"time"
)

func TestStampFillsOnlyWhatIsEmpty(t *testing.T) {
	at := time.Date(2021, 7, 6, 10, 0, 0, 0, time.UTC)
	ms := []Message{{ID: "mine", Time: at}, {}, {}}
	Stamp(ms)
	if ms[0].ID != "mine" || !ms[0].Time.Equal(at) {
		t.Errorf("Stamp changed what was set: %+v", ms[0])
	}
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, m := range ms[1:] {
		if !form.MatchString(m.ID) || m.Time.IsZero() {
			t.Errorf("not a UUID of version 7, or no time: %q %v", m.ID, m.Time)
		}
	}
	if ms[1].ID == ms[2].ID {
		t.Error("two messages got one ID")
	}
	again := ms[1].ID
	Stamp(ms)
	if ms[1].ID != again {
		t.Error("stamping again changed the identity")
	}
}

func TestUUIDCarriesTheTime(t *testing.T) {
	// RFC 9562, appendix A.6: 2022-02-22T19:22:22Z is 0x017F22E279B0 ms.
	if id := newID(time.UnixMilli(0x017F22E279B0)); id[:13] != "017f22e2-79b0" {
		t.Errorf("got %s", id)
	}
}

func TestHeaders(t *testing.T) {
	h := Headers{{"a", "1"}, {"b", ""}, {"a", "2"}, {"c", "3"}}
	if v, ok := h.Get("a"); v != "1" || !ok {
		t.Errorf("Get(a) = %q, %v", v, ok)
	}
	if v, ok := h.Get("b"); v != "" || !ok {
		t.Errorf("Get(b) = %q, %v: an empty value is a value", v, ok)
	}
	if _, ok := h.Get("A"); ok {
		t.Error("names are compared exactly")
	}
	if got, want := append(Headers(nil), h...).Set("a", "9"), (Headers{{"a", "9"}, {"b", ""}, {"c", "3"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("Set: %v, want %v", got, want)
	}
	if got, want := append(Headers(nil), h...).Del("a"), (Headers{{"b", ""}, {"c", "3"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("Del: %v, want %v", got, want)
	}
	if got := (Headers)(nil).Set("x", "y"); len(got) != 1 {
		t.Errorf("Set on nil: %v", got)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	m := Message{Topic: "t", Key: []byte("k"), Body: []byte("body"), Headers: Headers{{"a", "1"}}, ID: "id", Partition: At(3)}
	c := m.Clone()
	if !reflect.DeepEqual(m, c) {
		t.Fatalf("clone differs: %+v", c)
	}
	m.Key[0], m.Body[0], m.Headers[0].Value = 'X', 'X', "X"
	if string(c.Key) != "k" || string(c.Body) != "body" || c.Headers[0].Value != "1" {
		t.Errorf("clone shares memory: %+v", c)
	}
	empty := Message{Body: []byte{}}
	if c := empty.Clone(); c.Body == nil || c.Key != nil || c.Headers != nil {
		t.Errorf("nil and empty were mixed up: %#v", c)
	}
}

func TestPartition(t *testing.T) {
	if _, ok := Partition(0).Pinned(); ok {
		t.Error("zero pins nothing")
	}
	if n, ok := At(0).Pinned(); n != 0 || !ok {
		t.Errorf("At(0) pins %d, %v", n, ok)
	}
}

func TestNames(t *testing.T) {
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a'
		}
		return string(b)
	}
	for name, ok := range map[string]bool{
		"orders": true, "a.b.c": true, "A_b-c.0": true, "_": true, word(249): true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "a--b": false, "-a": false, "a-": false, word(250): false,
		"a b": false, "a/b": false, "ä": false, "a\x00": false,
		"orders--default--dlq": true, "orders--g--retry-1000": true, "orders--g--dlq--h--retry-100": true,
		"orders--g--other": false, "orders--g--retry-": false, "orders--g--retry-x": false, "orders--dlq": false, "--g--dlq": false,
		"queue:any name, even -- this": true, "queue:": false, "queue:a\nb": false, "topic:__x--y": true,
	} {
		if err := CheckTopic(name); (err == nil) != ok {
			t.Errorf("CheckTopic(%q) = %v", name, err)
		}
	}
	for _, topic := range []string{"orders", "queue:orders", "topic:orders"} {
		if got := DeadLetterTopic(topic, ""); got != "orders--default--dlq" {
			t.Errorf("dead letters of %s are in %s", topic, got)
		}
		if got := RetryTopic(topic, "g"); got != "orders--g--retry-" {
			t.Errorf("retries of %s are in %s", topic, got)
		}
	}
	for name, ok := range map[string]bool{"": true, "g": true, "g.1": true, "g--1": false, "g 1": false} {
		if err := CheckGroup(name); (err == nil) != ok {
			t.Errorf("CheckGroup(%q) = %v", name, err)
		}
	}
}

func FuzzCheckTopic(f *testing.F) {
	for _, s := range []string{"a", "a.b", "a--g--dlq", "queue:x", "topic:", "--", "a--b--c--dlq"} {
		f.Add(s, "g")
	}
	f.Fuzz(func(t *testing.T, topic, group string) {
		if CheckTopic(topic) != nil || CheckGroup(group) != nil {
			return
		}
		// What is derived from valid names is valid, up to its length, and says where it came from.
		if dead := DeadLetterTopic(topic, group); len(dead) <= maxName && len(topic) > 0 {
			_, queue := RawQueue(topic)
			_, raw := RawTopic(topic)
			if err := CheckTopic(dead); err != nil && !queue && !raw {
				t.Errorf("dead letters of %q would be in %q: %v", topic, dead, err)
			}
		}
	})
}
