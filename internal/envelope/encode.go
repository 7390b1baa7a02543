package envelope

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// EncodeKafka calls put for each header of m's record, attributes first, then m's own in their order. A bare message has only its own. Key,
// body and record timestamp are the adapter's.
func EncodeKafka(m *stagebus.Message, meta Meta, put func(name, value string)) {
	if plain := bare(m); !plain || meta != (Meta{}) {
		for k := range kinds {
			if name := table[k].kafka; name != "" {
				if v, ok := value(m, meta, k, plain); ok {
					put(name, v)
				}
			}
		}
	}
	for i := range m.Headers {
		put(m.Headers[i].Key, m.Headers[i].Value)
	}
}

// EncodeAMQP returns the properties of m. now is the time from which Expiration counts. A bare message has no CloudEvents header but for its
// key, which has no other place.
//
// Headers come sorted by name within m's own, since an AMQP table keeps no order; if m's are in another, stagebus-order lists their names. It
// isn't written where the names alone exceed 32 KiB, to stay within a frame: then the order, and only that, is lost.
func EncodeAMQP(m *stagebus.Message, meta Meta, now time.Time) Properties {
	p := Properties{Priority: m.Priority, Expiration: expiration(m.Deadline, now)}
	if m.Time.Unix() >= 0 { // the property is unsigned
		p.Timestamp = m.Time.UTC().Truncate(time.Second)
	}
	own, listed := sorted(m.Headers)

	p.Headers = make([]stagebus.Header, 0, len(own)+int(kinds))
	plain := bare(m)
	for k := range kinds {
		a := &table[k]
		if a.field != nil && a.native != nil {
			*a.native(&p) = *a.field(m)
		}
		if a.amqp == "" {
			continue
		}
		v, ok := value(m, meta, k, plain)
		switch {
		case k == order:
			v, ok = listed, listed != ""
		case k == specversion && hasSpecversion(own): // or a reader would take m's headers for attributes
			v, ok = "1.0", true
		}
		if ok {
			p.Headers = append(p.Headers, stagebus.Header{Key: a.amqp, Value: v})
		}
	}
	for _, h := range own {
		if rest, ok := strings.CutPrefix(h.Key, canonical); ok && len(onAMQP)+len(rest) <= maxKey {
			h.Key = onAMQP + rest
		}
		p.Headers = append(p.Headers, h)
	}
	return p
}

// value returns what is written for row k, and whether it is. plain: without CloudEvents headers.
func value(m *stagebus.Message, meta Meta, k kind, plain bool) (string, bool) {
	switch k {
	case specversion: // names the whole a CloudEvent: strict readers refuse one without these three
		return "1.0", m.ID != "" && m.Source != "" && m.Type != ""
	case timeOf:
		if plain {
			return "", false
		}
		return timestamp(m.Time)
	case expiryTime:
		return timestamp(m.Deadline)
	case priority:
		return strconv.Itoa(int(m.Priority)), m.Priority != 0
	case partitionKey:
		return string(m.Key), m.Key != nil
	case attempt:
		if meta.Attempt <= 1 {
			return "", false
		}
		return strconv.Itoa(meta.Attempt), true
	case due:
		if meta.Due.IsZero() {
			return "", false
		}
		return strconv.FormatInt(meta.Due.UnixMilli(), 10), true
	case nilBody:
		return "", m.Body == nil
	case order:
		return "", false // only EncodeAMQP knows
	}
	v := *table[k].field(m)
	return v, v != ""
}

// timestamp writes t as RFC 3339, which has four digits for the year: others aren't written.
func timestamp(t time.Time) (string, bool) {
	if t.IsZero() {
		return "", false
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return "", false
	}
	return t.Format(time.RFC3339Nano), true
}

// maxExpiration is RabbitMQ's limit: a longer one closes the channel.
const maxExpiration = 1<<32 - 1

// expiration returns the milliseconds until deadline, rounded up so that nothing expires early, and 0 once it has passed. A deadline too far
// away for RabbitMQ is left to the header.
func expiration(deadline, now time.Time) string {
	if deadline.IsZero() {
		return ""
	}
	left := max(deadline.Sub(now), 0)
	ms := left.Milliseconds()
	if left%time.Millisecond > 0 {
		ms++
	}
	if ms > maxExpiration {
		return ""
	}
	return strconv.FormatInt(ms, 10)
}

// hasSpecversion says that a reader would take hs for Knative's attributes, unless there is a specversion with a prefix.
func hasSpecversion(hs []stagebus.Header) bool {
	return slices.ContainsFunc(hs, func(h stagebus.Header) bool { return isBareName(h.Key, specversion) })
}

// isBareName compares with the attribute's name without prefix.
func isBareName(name string, k kind) bool {
	var buf [16]byte
	return len(name) == len(table[k].name) && string(fold(buf[:0], name)) == table[k].name
}
