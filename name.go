package stagebus

import (
	"strings"
	"unicode/utf8"
)

// DefaultGroup is the consumer group that an empty name means.
const DefaultGroup = "default"

const (
	maxName    = 249 // Kafka's limit for a topic, RabbitMQ's is 255: derived names must fit as well
	rawQueue   = "queue:"
	rawTopic   = "topic:"
	derivation = "--"
)

// RawQueue returns the RabbitMQ queue that a topic of the form "queue:NAME" names as it is.
func RawQueue(topic string) (name string, ok bool) { return strings.CutPrefix(topic, rawQueue) }

// RawTopic returns the Kafka topic that a topic of the form "topic:NAME" names as it is.
func RawTopic(topic string) (name string, ok bool) { return strings.CutPrefix(topic, rawTopic) }

// CheckTopic returns an [ErrInvalid] that says what is wrong with a topic's name. A portable name is words of ASCII letters,
// digits, "_" and "-" joined by single dots, without "--" and without "-" at either end, 249 bytes at most. Names derived by
// [DeadLetterTopic] and [RetryTopic] are topics too, and so are "queue:NAME" (1 to 255 bytes) and "topic:NAME".
func CheckTopic(name string) error {
	for _, raw := range []string{rawQueue, rawTopic} {
		if rest, ok := strings.CutPrefix(name, raw); ok {
			if rest == "" || len(rest) > 255 || !utf8.ValidString(rest) || hasControl(rest) {
				return invalid("topic", name, "after "+raw+" comes a name of 1 to 255 bytes of printable UTF-8")
			}
			return nil
		}
	}
	base := name
	for strings.Contains(base, derivation) { // strip "--GROUP--dlq" and "--GROUP--retry-MS" from the end
		parts := strings.Split(base, derivation)
		n := len(parts)
		if n < 3 || !derivedKind(parts[n-1]) || checkWords("group", parts[n-2]) != nil {
			break
		}
		base = strings.Join(parts[:n-2], derivation)
	}
	if err := checkWords("topic", base); err != nil {
		return err
	}
	if len(name) > maxName {
		return invalid("topic", name, "more than 249 bytes")
	}
	return nil
}

// CheckGroup is [CheckTopic] for the name of a consumer group; empty means [DefaultGroup].
func CheckGroup(name string) error {
	if name == "" {
		return nil
	}
	return checkWords("group", name)
}

// GroupName returns the name of a group as it is written: [DefaultGroup] for an empty one.
func GroupName(group string) string {
	if group == "" {
		return DefaultGroup
	}
	return group
}

// DeadLetterTopic is where [Reject] puts the messages of a topic that a group couldn't handle: TOPIC--GROUP--dlq.
func DeadLetterTopic(topic, group string) string {
	return baseName(topic) + derivation + GroupName(group) + derivation + "dlq"
}

// RetryTopic is the prefix of the topics or queues where a group's messages wait for their next attempt: one for each
// delay, in milliseconds, TOPIC--GROUP--retry-MS. It ends with the hyphen.
func RetryTopic(topic, group string) string {
	return baseName(topic) + derivation + GroupName(group) + derivation + "retry-"
}

func baseName(topic string) string {
	topic = strings.TrimPrefix(topic, rawQueue)
	return strings.TrimPrefix(topic, rawTopic)
}

func derivedKind(s string) bool {
	if s == "dlq" {
		return true
	}
	ms, ok := strings.CutPrefix(s, "retry-")
	return ok && ms != "" && strings.Trim(ms, "0123456789") == ""
}

func checkWords(field, name string) error {
	switch {
	case name == "":
		return invalid(field, name, "empty")
	case len(name) > maxName:
		return invalid(field, name, "more than 249 bytes")
	case strings.Contains(name, derivation):
		return invalid(field, name, `"--" is kept for derived names`)
	case name[0] == '-' || name[len(name)-1] == '-':
		return invalid(field, name, `starts or ends with "-"`)
	case name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, ".."):
		return invalid(field, name, "an empty word: words are joined by single dots")
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			return invalid(field, name, "only A-Z, a-z, 0-9, \"_\", \"-\" and single dots")
		}
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 })
}
