package stagebus

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on what is sent, the same on every broker. RabbitMQ's short strings end at 255 bytes, and its client closes the connection over a
// longer one; headers must fit a frame of 128 KiB together with what a dead letter adds.
const (
	maxShort       = 255
	maxHeaderBytes = 64 << 10
	maxHeaders     = 1024
)

// guard stands between the stack and the driver's producer: it sees messages as they leave.
type guard struct {
	inner   Producer
	b       *Broker
	timeout time.Duration
}

func (g *guard) Submit(ctx context.Context, ms []Message, done func([]Outcome)) error {
	if len(ms) == 0 {
		done(nil)
		return nil
	}
	limit := g.b.maxMessage()
	var be *BatchError
	for i := range ms {
		if err := checkMessage(&ms[i], limit); err != nil {
			be = refuse(be, len(ms), i, err)
		}
	}
	if be != nil {
		return be
	}
	if _, ok := ctx.Deadline(); ok {
		return g.inner.Submit(ctx, ms, done)
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	err := g.inner.Submit(ctx, ms, func(os []Outcome) { cancel(); done(os) })
	if err != nil {
		cancel()
	}
	return err
}

func (g *guard) Close(ctx context.Context) error { return g.inner.Close(ctx) }

func checkMessage(m *Message, limit int) error {
	if err := CheckTopic(m.Topic); err != nil {
		return err
	}
	if m.Partition < 0 {
		return invalid("partition", fmt.Sprint(int32(m.Partition)), "negative: use At")
	}
	for _, a := range [...]struct{ name, value string }{
		{"ID", m.ID}, {"Source", m.Source}, {"Type", m.Type}, {"Subject", m.Subject}, {"ContentType", m.ContentType},
		{"ContentEncoding", m.ContentEncoding}, {"CorrelationID", m.CorrelationID}, {"ReplyTo", m.ReplyTo}, {"Audience", m.Audience},
	} {
		if a.value == "" {
			continue
		}
		if len(a.value) > maxShort || !utf8.ValidString(a.value) || hasControl(a.value) {
			return invalid(a.name, a.value, "an attribute is at most 255 bytes of UTF-8 without control characters")
		}
	}
	for _, at := range [...]time.Time{m.Time, m.Deadline} {
		if y := at.UTC().Year(); y < 0 || y > 9999 {
			return invalid("time", at.String(), "RFC 3339 has years from 0 to 9999")
		}
	}
	for i := range m.Headers {
		k := m.Headers[i].Key
		switch {
		case k == "" || len(k) > maxShort || !utf8.ValidString(k):
			return invalid("header name", k, "1 to 255 bytes of UTF-8")
		case Reserved(k):
			return invalid("header name", k, "reserved for attributes: set the field of Message; extensions are spelled ce_NAME")
		}
	}
	if n := m.headerSize(); n > maxHeaderBytes || len(m.Headers) > maxHeaders {
		return &Error{Op: "send", Topic: m.Topic, Kind: ErrTooLarge,
			Cause: fmt.Errorf("%d headers, %d bytes of key, headers and attributes", len(m.Headers), n),
			Do:    "the limits are 1,024 and 64 KiB: put large values into the body"}
	}
	if n := m.Size(); limit > 0 && n > limit {
		return &Error{Op: "send", Topic: m.Topic, Kind: ErrTooLarge, Cause: fmt.Errorf("%d bytes, the limit is %d", n, limit),
			Do: "compress it, split it, send a reference, or raise the broker's limit"}
	}
	return nil
}

// Reserved reports whether a header's name carries an attribute or an adapter's own mark on the wire, or spells the prefix of CloudEvents in
// another way than ce_, in which its extensions are named whatever the broker. Names are compared without regard to the case of ASCII
// letters, as other programs read them.
func Reserved(name string) bool {
	if len(name) < 3 {
		return false
	}
	switch name[0] | 0x20 {
	case 'c', 's':
	default:
		return false // the common case, without folding the name
	}
	n := strings.Map(func(r rune) rune { // not ToLower, which makes ASCII of a few letters that aren't
		if 'A' <= r && r <= 'Z' {
			r |= 0x20
		}
		return r
	}, name)
	switch n {
	case "content-type", "content-encoding", "stagebus-attempt", "stagebus-nil", "stagebus-order", "stagebus-due":
		return true
	}
	for _, prefix := range [...]string{"ce_", "ce-", "cloudevents_", "cloudevents:"} {
		if rest, ok := strings.CutPrefix(n, prefix); ok {
			switch rest {
			case "specversion", "id", "source", "type", "time", "subject", "datacontenttype", "correlationid", "audience",
				"expirytime", "partitionkey", "replyto", "priority":
				return true
			}
			return !strings.HasPrefix(name, "ce_")
		}
	}
	return false
}

// dstGuard refuses an empty dst, so that no adapter has to.
type dstGuard struct{ Consumer }

func (g *dstGuard) Receive(ctx context.Context, dst []Delivery) (int, error) {
	if len(dst) == 0 {
		return 0, invalid("dst", "", "Receive needs room for at least one delivery")
	}
	return g.Consumer.Receive(ctx, dst)
}
