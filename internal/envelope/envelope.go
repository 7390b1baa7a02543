// Package envelope maps the attributes of a message to the names they have on the wire, for every broker, from one table. It knows no client
// library: adapters hand it names and strings.
//
// The form is CloudEvents 1.0 in binary mode: attributes in headers, the body untouched. Kafka has them as ce_NAME, content-type and
// content-encoding; AMQP 0.9.1, for which CloudEvents has no binding, as cloudEvents_NAME (what RabbitMQ's own conversion to AMQP 1.0 makes a
// conforming event of), mirrored to the native properties that other programs look at.
//
// One spelling is written, all in use are read, without regard to case: ce_, ce-, cloudEvents_, cloudEvents:, native properties alone, and the
// unprefixed names of Knative if an unprefixed specversion says so. Other CloudEvents attributes are headers of the message under ce_NAME.
// Every header that is written for an attribute is [stagebus.Reserved], and none that is Reserved is left in the headers of a message that was
// read: what was received can be sent again.
//
// An attribute that comes twice is an error, since programs that differ in which one they believe can be played against each other. The
// exception is two spellings that agree. Where a header and a native property differ, the header counts: brokers and relays change properties.
//
// Everything here is a pure function of its arguments and safe for concurrent use.
package envelope

import (
	"time"

	"github.com/stagebus/stagebus"
)

// Meta is what an adapter itself keeps in headers.
type Meta struct {
	Attempt int       // of a copy that waits for another attempt; 0 and 1 are not written, and 0 means that nothing was read
	Due     time.Time // when such a copy may be delivered, to the millisecond
}

// The headers of [Meta]. Whoever copies a message as it was received replaces them.
const (
	HeaderAttempt = "stagebus-attempt"
	HeaderDue     = "stagebus-due"
)

// Properties are a message's native AMQP properties and header table, in a form of this package's own.
type Properties struct {
	MessageID, Type, ContentType, ContentEncoding, CorrelationID, ReplyTo string

	Expiration string    // milliseconds, decimal
	Timestamp  time.Time // whole seconds
	Priority   uint8

	// Headers has wire names and string values. A name that occurs several times does so in a row: on the wire it is one array.
	Headers []stagebus.Header
}

// kind indexes the table. The order is that in which Kafka headers are written.
type kind uint8

const (
	specversion kind = iota
	id
	source
	typ
	subject
	timeOf
	contentType
	contentEncoding
	correlationID
	replyTo
	audience
	expiryTime
	priority
	partitionKey
	attempt
	due
	nilBody
	order
	kinds
	ordinary = kinds // no attribute: one of the application's headers
)

// attribute is a row of the table. An empty wire name is one that isn't written.
type attribute struct {
	name    string // CloudEvents' name, which follows the prefix; "" for what isn't an attribute but stagebus' own mark
	kafka   string
	amqp    string
	knative bool // also read without prefix
	field   func(*stagebus.Message) *string
	native  func(*Properties) *string
}

// On AMQP, what has no amqp name travels in its native property alone: RabbitMQ rewrites reply-to (amq.rabbitmq.reply-to), so that a copy in a
// header would be wrong, and content-type is where the binding for AMQP 1.0 puts datacontenttype.
var table = [kinds]attribute{
	specversion: {name: "specversion", kafka: "ce_specversion", amqp: "cloudEvents_specversion", knative: true},
	id: {name: "id", kafka: "ce_id", amqp: "cloudEvents_id", knative: true,
		field:  func(m *stagebus.Message) *string { return &m.ID },
		native: func(p *Properties) *string { return &p.MessageID }},
	source: {name: "source", kafka: "ce_source", amqp: "cloudEvents_source", knative: true,
		field: func(m *stagebus.Message) *string { return &m.Source }},
	typ: {name: "type", kafka: "ce_type", amqp: "cloudEvents_type", knative: true,
		field:  func(m *stagebus.Message) *string { return &m.Type },
		native: func(p *Properties) *string { return &p.Type }},
	subject: {name: "subject", kafka: "ce_subject", amqp: "cloudEvents_subject", knative: true,
		field: func(m *stagebus.Message) *string { return &m.Subject }},
	timeOf: {name: "time", kafka: "ce_time", amqp: "cloudEvents_time", knative: true},
	contentType: {name: "datacontenttype", kafka: "content-type", knative: true,
		field:  func(m *stagebus.Message) *string { return &m.ContentType },
		native: func(p *Properties) *string { return &p.ContentType }},
	contentEncoding: {kafka: "content-encoding",
		field:  func(m *stagebus.Message) *string { return &m.ContentEncoding },
		native: func(p *Properties) *string { return &p.ContentEncoding }},
	correlationID: {name: "correlationid", kafka: "ce_correlationid", amqp: "cloudEvents_correlationid", knative: true,
		field:  func(m *stagebus.Message) *string { return &m.CorrelationID },
		native: func(p *Properties) *string { return &p.CorrelationID }},
	replyTo: {name: "replyto", kafka: "ce_replyto",
		field:  func(m *stagebus.Message) *string { return &m.ReplyTo },
		native: func(p *Properties) *string { return &p.ReplyTo }},
	audience: {name: "audience", kafka: "ce_audience", amqp: "cloudEvents_audience",
		field: func(m *stagebus.Message) *string { return &m.Audience }},
	expiryTime: {name: "expirytime", kafka: "ce_expirytime", amqp: "cloudEvents_expirytime", knative: true,
		native: func(p *Properties) *string { return &p.Expiration }},
	priority:     {name: "priority", kafka: "ce_priority"},
	partitionKey: {name: "partitionkey", amqp: "cloudEvents_partitionkey", knative: true},
	attempt:      {kafka: HeaderAttempt, amqp: HeaderAttempt},
	due:          {kafka: HeaderDue, amqp: HeaderDue},
	nilBody:      {amqp: "stagebus-nil"},
	order:        {amqp: "stagebus-order"},
}

// byName finds a row by what follows the prefix, byWhole by the whole lower-case name, written by the names that we write.
var byName, byWhole, written = func() (name, whole, written map[string]kind) {
	name, written = map[string]kind{}, map[string]kind{}
	whole = map[string]kind{"content-type": contentType, "content-encoding": contentEncoding}
	for k := range kinds {
		a := table[k]
		switch {
		case a.name != "":
			name[a.name] = k
		case k != contentEncoding:
			whole[a.amqp] = k
		}
		for _, n := range []string{a.kafka, a.amqp} {
			if n != "" {
				written[n] = k
			}
		}
	}
	return name, whole, written
}()

// The prefixes of CloudEvents attributes, lower case. ce_ is also how other attributes are named in Message.Headers.
const (
	canonical = "ce_"
	onAMQP    = "cloudEvents_"
	maxKey    = 255 // bytes that a name has on AMQP
)

var prefixes = [...]string{canonical, "cloudevents_", "ce-", "cloudevents:"}

// classify tells what a header's name means: the row of an attribute, or ordinary with the name that the message's header gets.
func classify(name string) (kind, string) {
	if len(name) < 3 {
		return ordinary, name
	}
	if c := name[0] | 0x20; c != 'c' && c != 's' {
		return ordinary, name
	}
	if k, ok := written[name]; ok {
		return k, "" // nearly always: nothing to fold
	}
	var buf [maxKey]byte
	lower := fold(buf[:0], name)
	if k, ok := byWhole[string(lower)]; ok {
		return k, ""
	}
	for _, p := range prefixes {
		if len(lower) < len(p) || string(lower[:len(p)]) != p {
			continue
		}
		if k, ok := byName[string(lower[len(p):])]; ok {
			return k, ""
		}
		switch name[:len(p)] {
		case canonical:
			return ordinary, name
		case onAMQP: // ours: the rest comes back as it was sent
			return ordinary, canonical + name[len(p):]
		}
		return ordinary, canonical + string(lower[len(p):])
	}
	return ordinary, name
}

// fold appends s in lower case. Only ASCII is folded: no attribute has other letters, and a K of temperature is no k.
func fold(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// bare says that m has nothing for which a CloudEvents attribute is needed.
func bare(m *stagebus.Message) bool {
	return m.ID == "" && m.Source == "" && m.Type == "" && m.Subject == "" && m.ContentType == "" && m.ContentEncoding == "" &&
		m.CorrelationID == "" && m.ReplyTo == "" && m.Audience == "" && m.Deadline.IsZero() && m.Priority == 0
}
