package envelope

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// DecodeKafka fills m from the n headers of a record. The adapter has set Topic, Key, Body and Time (the record's timestamp) before and left the
// rest zero. A ce_time replaces Time; a ce_partitionkey becomes the Key of a record that has none.
//
// An error, for Delivery.Err, is an *[stagebus.InvalidError] that names the first header that could not be understood; m is then as far as it
// could be read. The values of m's headers share one string.
func DecodeKafka(m *stagebus.Message, n int, header func(i int) (name string, value []byte)) (Meta, error) {
	if n == 0 {
		return Meta{}, nil
	}
	size := 0
	for i := range n {
		_, v := header(i)
		size += len(v)
	}
	var values strings.Builder // one allocation for all values, of what is there, not of what someone declares
	values.Grow(size)
	for i := range n {
		_, v := header(i)
		values.Write(v)
	}
	rest := values.String()

	d := decoder{m: m}
	for i := range n {
		name, v := header(i)
		d.header(name, rest[:len(v)], n-i)
		rest = rest[len(v):]
	}
	return d.finish(nil)
}

// DecodeAMQP fills m from p. The adapter has set Topic and Body before and left the rest zero; Body becomes nil if the message says so, and
// else isn't nil. Key is that of cloudEvents_partitionkey. Values that aren't strings on the wire arrive as strings: integers in decimal, times as RFC 3339.
//
// A native property counts where its header is missing or empty. Expiration alone gives a Deadline only together with Timestamp.
//
// An error, for Delivery.Err, is an *[stagebus.InvalidError] that names the first header that could not be understood; m is then as far as it
// could be read.
func DecodeAMQP(m *stagebus.Message, p Properties) (Meta, error) {
	d := decoder{m: m, knative: knative(p.Headers)}
	for i, h := range p.Headers {
		d.header(h.Key, h.Value, len(p.Headers)-i)
	}
	meta, err := d.finish(&p)
	m.Headers = restore(m.Headers, d.raw[order].value)
	if m.Body == nil && d.raw[nilBody].name == "" {
		m.Body = []byte{}
	}
	return meta, err
}

// knative says that attributes come without prefix: there is such a specversion, and none with a prefix.
func knative(hs []stagebus.Header) bool {
	says := func(h stagebus.Header) bool {
		return isBareName(h.Key, specversion) && (h.Value == "1.0" || h.Value == "0.3")
	}
	prefixed := func(h stagebus.Header) bool { k, _ := classify(h.Key); return k == specversion }
	return slices.ContainsFunc(hs, says) && !slices.ContainsFunc(hs, prefixed)
}

type decoder struct {
	m       *stagebus.Message
	knative bool
	raw     [kinds]struct{ name, value string } // the header that each attribute came in
	err     error
}

// header reads one header; left is how many are to come, with this one.
func (d *decoder) header(name, value string, left int) {
	k, key := classify(name)
	if k == ordinary && d.knative {
		k, key = classifyKnative(name, key)
	}
	if k == ordinary {
		if d.m.Headers == nil {
			d.m.Headers = make(stagebus.Headers, 0, left)
		}
		d.m.Headers = append(d.m.Headers, stagebus.Header{Key: key, Value: value})
		return
	}
	r := &d.raw[k]
	switch {
	case r.name == "":
		r.name, r.value = name, value
	case value == r.value && !sameName(name, r.name):
		// two spellings that agree, as a bridge between programs leaves them
	default:
		d.fail(name, value, "the attribute is already there, from header "+strconv.Quote(short(r.name)))
	}
}

func classifyKnative(name, key string) (kind, string) {
	var buf [maxKey]byte
	lower := fold(buf[:0], name)
	if k, ok := byName[string(lower)]; ok && table[k].knative {
		return k, ""
	}
	if string(lower) == "dataschema" {
		return ordinary, canonical + "dataschema"
	}
	return ordinary, key
}

func sameName(a, b string) bool {
	return len(a) == len(b) && string(fold(nil, a)) == string(fold(nil, b))
}

// finish turns what was read into fields. p is nil on Kafka.
func (d *decoder) finish(p *Properties) (Meta, error) {
	var meta Meta
	for k := range kinds {
		r, a := &d.raw[k], &table[k]
		switch {
		case k == partitionKey:
			if r.name != "" && d.m.Key == nil {
				d.m.Key = []byte(r.value)
			}
		case k == nilBody:
			if r.name == "" {
				break
			}
			if len(d.m.Body) > 0 {
				d.fail(r.name, r.value, "it marks a message without a body, but there is one")
				break
			}
			d.m.Body = nil
		case r.value != "":
			d.set(k, r.name, r.value, &meta)
		case p == nil:
		case k == timeOf:
			if !p.Timestamp.IsZero() {
				d.m.Time = p.Timestamp.UTC()
			}
		case k == priority:
			d.m.Priority = p.Priority
		case k == expiryTime:
			d.expiration(p)
		case a.native != nil:
			*a.field(d.m) = *a.native(p)
		}
	}
	return meta, d.err
}

// set gives the value of a header to its field.
func (d *decoder) set(k kind, name, value string, meta *Meta) {
	switch k {
	case specversion, order: // no fields
	case timeOf:
		d.time(&d.m.Time, name, value)
	case expiryTime:
		d.time(&d.m.Deadline, name, value)
	case priority:
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			d.fail(name, value, "not a number from 0 to 255")
			return
		}
		d.m.Priority = uint8(n)
	case attempt:
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 {
			d.fail(name, value, "not a number of attempts")
			return
		}
		meta.Attempt = int(n)
	case due:
		ms, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			d.fail(name, value, "not a time in milliseconds")
			return
		}
		meta.Due = time.UnixMilli(ms).UTC()
	default:
		*table[k].field(d.m) = value
	}
}

func (d *decoder) time(dst *time.Time, name, value string) {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		d.fail(name, value, "not a time as in RFC 3339")
		return
	}
	*dst = t.UTC()
}

func (d *decoder) expiration(p *Properties) {
	if p.Expiration == "" || p.Timestamp.IsZero() {
		return
	}
	ms, err := strconv.ParseUint(p.Expiration, 10, 32)
	if err != nil {
		d.fail("expiration", p.Expiration, fmt.Sprintf("not a number of milliseconds up to %d", uint64(maxExpiration)))
		return
	}
	d.m.Deadline = p.Timestamp.UTC().Add(time.Duration(ms) * time.Millisecond)
}

// fail keeps the first error: a message may have thousands.
func (d *decoder) fail(name, value, reason string) {
	if d.err == nil {
		d.err = &stagebus.InvalidError{Field: "header " + strconv.Quote(short(name)), Value: short(value), Reason: reason}
	}
}

// short cuts what a stranger wrote, for an error that may be logged.
func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:61], "") + "..."
	}
	return s
}
