// Package deadletter writes what a rejected message carries beside its own headers, the same for every adapter.
package deadletter

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stagebus/stagebus"
)

// Letter says why a message was rejected and where it came from.
type Letter struct {
	Reason   string
	Origin   stagebus.Position // Topic as the consumer named it, so that it can be sent there again
	Group    string
	Attempt  int
	Rejected time.Time
}

// maxReason is where reasons are cut: an error's text may hold a whole payload, and headers must fit a frame.
const maxReason = 1 << 10

// Headers returns the letter's headers. They replace those of an earlier rejection, which [Is] finds.
func (l Letter) Headers() stagebus.Headers {
	return stagebus.Headers{
		{Key: stagebus.HeaderDeadReason, Value: cut(l.Reason)},
		{Key: stagebus.HeaderDeadTopic, Value: l.Origin.Topic},
		{Key: stagebus.HeaderDeadPartition, Value: strconv.Itoa(int(l.Origin.Partition))},
		{Key: stagebus.HeaderDeadOffset, Value: strconv.FormatInt(l.Origin.Offset, 10)},
		{Key: stagebus.HeaderDeadGroup, Value: stagebus.GroupName(l.Group)},
		{Key: stagebus.HeaderDeadAttempt, Value: strconv.Itoa(l.Attempt)},
		{Key: stagebus.HeaderDeadTime, Value: l.Rejected.UTC().Format(time.RFC3339Nano)},
	}
}

// Is reports whether a header is one of a letter's.
func Is(name string) bool { return strings.HasPrefix(name, "stagebus-dead-") }

// cut shortens a reason, and leaves no half of a character.
func cut(s string) string {
	if len(s) <= maxReason {
		return s
	}
	for i := maxReason; i > maxReason-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:maxReason] // no UTF-8
}
