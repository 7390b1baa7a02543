// Package ladder rounds retry delays up to a few steps, since each step is a queue on RabbitMQ and a topic on Kafka: messages that wait
// in one place must become due in the order in which they came.
package ladder

import (
	"strconv"
	"time"
)

var steps = func() []time.Duration {
	ms, s, m, h := time.Millisecond, time.Second, time.Minute, time.Hour
	return []time.Duration{
		100 * ms, 200 * ms, 500 * ms, s, 2 * s, 5 * s, 10 * s, 20 * s, 30 * s,
		m, 2 * m, 5 * m, 10 * m, 20 * m, 30 * m, h, 2 * h, 6 * h, 12 * h, 24 * h,
	}
}()

// Step returns the shortest step that is at least after; the longest, 24 h, is the limit.
func Step(after time.Duration) time.Duration {
	for _, s := range steps {
		if after <= s {
			return s
		}
	}
	return steps[len(steps)-1]
}

// Millis writes a step as the names of retry queues and topics do.
func Millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
