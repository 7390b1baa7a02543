package bench

import (
	"fmt"
	"time"
)

// What is said about a rate that wasn't reached, and about a generator that was late itself.
const (
	reached  = 0.95
	lateNote = int64(5 * time.Millisecond)
)

// notes say what the figures mean, and what may be wrong with them.
func (r *Report) notes() (notes []string) {
	var open, late, memory bool
	say := func(row *Row, format string, args ...any) {
		where := Size(row.Size)
		if l := r.letter(row.Broker); l != "" {
			where = l + ", " + where
		}
		notes = append(notes, fmt.Sprintf("%s, %s: %s", where, r.title(row.Load), fmt.Sprintf(format, args...)))
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		memory = memory || r.Brokers[row.Broker].Kind == Memory
		var unsent, foreign, swapped, lateMost int64
		var first time.Duration
		var slow *Round // the one that was farthest from its rate
		for j := range row.Rounds {
			x := &row.Rounds[j]
			if x.PerSecond < x.Asked*reached && (slow == nil || x.PerSecond/x.Asked < slow.PerSecond/slow.Asked) {
				slow = x
			}
			unsent, foreign, lateMost = unsent+x.Unsent, foreign+x.Counts.Foreign, max(lateMost, x.LateP99)
			swapped += x.Counts.OutOfOrder
			open = open || x.Latency != nil
			first = max(first, time.Duration(x.FirstMessage))
		}
		if slow != nil {
			say(row, "%s a second were asked for and %s reached: the broker was overloaded or away, and latencies say for how long",
				figures(slow.Asked), figures(slow.PerSecond))
		}
		if unsent > 0 {
			say(row, "%s messages of the schedule were never sent", number(unsent))
		}
		if lateMost > lateNote {
			late = true
			say(row, "the generator itself was late by %s at p99: this machine is too busy for this rate, and that is in the latencies", short(lateMost))
		}
		if swapped > 0 && r.Brokers[row.Broker].Kind == RabbitMQ && r.Settings.Consumers > 1 {
			say(row, "several consumers of one queue share the messages of a key, so their order isn't kept (KeyOrder in the library keeps it)")
		}
		if foreign > 0 {
			say(row, "%s messages were not of this measurement", number(foreign))
		}
		if first > 0 {
			say(row, "the first message came %s after the consumers began to open", short(int64(first)))
		}
	}
	if n, first := r.Failed(); n > 0 {
		notes = append(notes, fmt.Sprintf("%s messages were not confirmed: %s", number(n), first))
	}
	if open {
		what := map[Mode]string{Publish: "confirmation", Both: "receipt", Request: "reply"}[r.Settings.Mode]
		s := "latency is from the scheduled time of a message to its " + what
		if !late {
			s += "; the generator kept to the schedule"
		}
		notes = append(notes, s)
	}
	if r.Settings.Mode == Publish {
		notes = append(notes, "nobody has read what was published: bench both and bench consume count what is lost")
	}
	if memory {
		notes = append(notes, "CPU and allocations of memory:// are the broker's too, which is in this process")
	}
	return notes
}
