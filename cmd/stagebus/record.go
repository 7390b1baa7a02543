package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/internal/nearest"
)

// record is one message as one line of JSON: what consume prints and publish --jsonl reads. Every message survives the way
// there and back byte for byte. What is UTF-8 is a string; what isn't goes to key_base64 and body_base64, and in headers and
// attributes becomes {"base64": "…"}. A body of null is a tombstone; no key and an empty key differ.
//
// The fields from Position on describe a delivery: publish accepts and ignores them, so that what was consumed can be
// published as it is.
type record struct {
	Topic           string   `json:"topic,omitempty"`
	Partition       *int32   `json:"partition,omitempty"` // only if pinned; where a message was read is in Position
	Key             optional `json:"key,omitzero"`
	KeyBase64       []byte   `json:"key_base64,omitempty"`
	Body            optional `json:"body,omitzero"`
	BodyBase64      []byte   `json:"body_base64,omitempty"`
	Headers         []pair   `json:"headers,omitempty"`
	Time            moment   `json:"time,omitzero"`
	ID              text     `json:"id,omitempty"`
	Source          text     `json:"source,omitempty"`
	Type            text     `json:"type,omitempty"`
	Subject         text     `json:"subject,omitempty"`
	ContentType     text     `json:"content_type,omitempty"`
	ContentEncoding text     `json:"content_encoding,omitempty"`
	CorrelationID   text     `json:"correlation_id,omitempty"`
	ReplyTo         text     `json:"reply_to,omitempty"`
	Audience        text     `json:"audience,omitempty"`
	Deadline        moment   `json:"deadline,omitzero"`
	Priority        uint8    `json:"priority,omitempty"`

	Position    *position `json:"position,omitempty"`
	Attempt     int       `json:"attempt,omitempty"`
	Redelivered bool      `json:"redelivered,omitempty"`
	Peer        *peer     `json:"peer,omitempty"`
	Error       string    `json:"error,omitempty"` // why a layer could not read this one
}

type position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

type peer struct {
	User   string `json:"user,omitempty"`
	Signer string `json:"signer,omitempty"`
	Key    string `json:"key,omitempty"`
}

// newRecord returns m as a record. It shares m's bytes.
func newRecord(m *stagebus.Message) record {
	r := record{
		Topic: m.Topic,
		Time:  moment(m.Time), ID: text(m.ID), Source: text(m.Source), Type: text(m.Type), Subject: text(m.Subject),
		ContentType: text(m.ContentType), ContentEncoding: text(m.ContentEncoding), CorrelationID: text(m.CorrelationID),
		ReplyTo: text(m.ReplyTo), Audience: text(m.Audience), Deadline: moment(m.Deadline), Priority: m.Priority,
	}
	if n, ok := m.Partition.Pinned(); ok {
		r.Partition = &n
	}
	switch {
	case m.Key == nil:
	case utf8.Valid(m.Key):
		r.Key = some(string(m.Key))
	default:
		r.KeyBase64 = m.Key
	}
	switch {
	case m.Body == nil:
		r.Body = optional{given: true}
	case utf8.Valid(m.Body):
		r.Body = some(string(m.Body))
	default:
		r.BodyBase64 = m.Body
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, pair{text(h.Key), text(h.Value)})
	}
	return r
}

// deliveryRecord is newRecord with what is known about a delivery.
func deliveryRecord(d *stagebus.Delivery) record {
	r := newRecord(&d.Message)
	// Where it was read is in the position. As a pin it would follow the record to another topic.
	r.Partition = nil
	r.Position = &position{d.Position.Topic, d.Position.Partition, d.Position.Offset}
	r.Attempt, r.Redelivered = d.Attempt, d.Redelivered
	if d.Peer != nil {
		r.Peer = &peer{d.Peer.User, d.Peer.Signer, d.Peer.Key}
	}
	if d.Err != nil {
		r.Error = d.Err.Error()
	}
	return r
}

// message is the inverse of newRecord.
func (r *record) message() (stagebus.Message, error) {
	m := stagebus.Message{
		Topic: r.Topic,
		Time:  time.Time(r.Time), ID: string(r.ID), Source: string(r.Source), Type: string(r.Type), Subject: string(r.Subject),
		ContentType: string(r.ContentType), ContentEncoding: string(r.ContentEncoding), CorrelationID: string(r.CorrelationID),
		ReplyTo: string(r.ReplyTo), Audience: string(r.Audience), Deadline: time.Time(r.Deadline), Priority: r.Priority,
	}
	if r.Partition != nil {
		if *r.Partition < 0 || *r.Partition == 1<<31-1 {
			return m, fmt.Errorf(`"partition" is %d: partitions count from 0`, *r.Partition)
		}
		m.Partition = stagebus.At(*r.Partition)
	}
	var err error
	if m.Key, err = merge("key", r.Key, r.KeyBase64); err != nil {
		return m, err
	}
	if !r.Body.given && r.BodyBase64 == nil {
		// Left out by mistake is far more likely than a tombstone, which deletes.
		return m, errors.New(`no "body" and no "body_base64": a tombstone is "body": null`)
	}
	if m.Body, err = merge("body", r.Body, r.BodyBase64); err != nil {
		return m, err
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, stagebus.Header{Key: string(h[0]), Value: string(h[1])})
	}
	return m, nil
}

func merge(name string, plain optional, encoded []byte) ([]byte, error) {
	switch {
	case plain.given && encoded != nil:
		return nil, fmt.Errorf("both %q and %q", name, name+"_base64")
	case encoded != nil:
		return encoded, nil
	case plain.value != nil:
		return []byte(*plain.value), nil
	}
	return nil, nil
}

// encodeRecord appends r and a line feed to w.
func encodeRecord(w *bytes.Buffer, r *record) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // <, > and & are themselves outside of web pages
	return e.Encode(r)
}

// decodeRecord reads one line. Unknown fields are errors: a misspelt one would be dropped in silence.
func decodeRecord(line []byte) (stagebus.Message, error) {
	if err := checkText(line); err != nil {
		return stagebus.Message{}, err
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var r record
	if err := d.Decode(&r); err != nil {
		if misspelt := unknownField(line); misspelt != nil {
			err = misspelt
		}
		return stagebus.Message{}, plainJSONError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return stagebus.Message{}, errors.New("more than one JSON value on a line")
	}
	return r.message()
}

// checkText refuses what encoding/json would silently replace by U+FFFD: bytes that aren't UTF-8, and halves of surrogate pairs, which
// Python writes for such bytes.
func checkText(line []byte) error {
	if !utf8.Valid(line) {
		return errors.New("not UTF-8: binary goes into key_base64, body_base64 and {\"base64\": …}")
	}
	for rest := line; ; {
		i := bytes.IndexByte(rest, '\\')
		if i < 0 || i+1 >= len(rest) {
			return nil
		}
		high, ok := unicodeEscape(rest[i:])
		if !ok { // some other escape, perhaps of a backslash
			rest = rest[i+2:]
			continue
		}
		rest = rest[i+6:]
		if !utf16.IsSurrogate(high) {
			continue
		}
		low, _ := unicodeEscape(rest)
		if utf16.DecodeRune(high, low) == utf8.RuneError {
			return fmt.Errorf("\\u%04x is half a character: binary goes into key_base64, body_base64 and {\"base64\": …}", high)
		}
		rest = rest[6:]
	}
}

// unicodeEscape returns the number that \uXXXX at the start of b stands for.
func unicodeEscape(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// plainJSONError says it without the names of Go types.
func plainJSONError(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("a JSON %s where an object is expected", wrong.Value)
	case errors.As(err, &wrong) && wrong.Field == "headers":
		return errors.New(`"headers" is a list of pairs, as in "headers": [["name", "value"]]`)
	case errors.As(err, &wrong):
		return fmt.Errorf("a JSON %s does not fit into %q", wrong.Value, wrong.Field)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the JSON object does not end")
	}
	s := strings.TrimPrefix(err.Error(), "json: ")
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		s += "; without --jsonl each line is a message as it is"
	}
	return fmt.Errorf("not a record in JSON: %s", s)
}

// unknownField names the first field that a record doesn't have, and what was probably meant.
func unknownField(line []byte) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return nil
	}
	var known []string
	for t, i := reflect.TypeFor[record](), 0; i < t.NumField(); i++ {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known = append(known, name)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) { // as encoding/json compares
			continue
		}
		if near := nearest.Of(name, known); near != "" {
			return fmt.Errorf("unknown field %q; did you mean %q?", name, near)
		}
		return fmt.Errorf("unknown field %q; the fields are %s", name, strings.Join(known, ", "))
	}
	return nil
}

// optional tells a field that is missing from one that is null and from one that is empty.
type optional struct {
	given bool
	value *string
}

func some(s string) optional { return optional{true, &s} }

func (o optional) IsZero() bool { return !o.given }

func (o optional) MarshalJSON() ([]byte, error) {
	if o.value == nil {
		return []byte("null"), nil
	}
	return quote(*o.value)
}

func (o *optional) UnmarshalJSON(b []byte) error {
	o.given = true
	if len(b) > 0 && b[0] != '"' && b[0] != 'n' {
		return errors.New("key and body are strings (or null): put JSON into quotes, as jq's tojson does, and binary into key_base64 and body_base64")
	}
	return json.Unmarshal(b, &o.value)
}

// text is a string that need not be UTF-8.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return quote(string(t))
	}
	return json.Marshal(map[string][]byte{"base64": []byte(t)})
}

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var o struct {
			Base64 *[]byte `json:"base64"`
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil || o.Base64 == nil {
			return errors.New(`an object in place of a string is {"base64": "…"}`)
		}
		*t = text(*o.Base64)
		return nil
	}
	if len(b) == 0 || b[0] != '"' {
		return fmt.Errorf("%s where a string is expected", shorten(b))
	}
	var s string
	err := json.Unmarshal(b, &s)
	*t = text(s)
	return err
}

// pair is a header: [name, value]. An object would lose the order and the duplicates.
type pair [2]text

func (p *pair) UnmarshalJSON(b []byte) error {
	var ts []text
	if len(b) == 0 || b[0] != '[' {
		return fmt.Errorf("%s where a header is expected, as in \"headers\": [[\"name\", \"value\"]]", shorten(b))
	}
	if err := json.Unmarshal(b, &ts); err != nil {
		return err
	}
	if len(ts) != 2 {
		return fmt.Errorf("a header of %d elements: it is [name, value]", len(ts))
	}
	*p = pair(ts)
	return nil
}

// moment is a time in RFC 3339, to the nanosecond and in UTC. Years that RFC 3339 can't write, which a faulty clock or a foreign
// program may have sent, are a number of milliseconds since 1970.
type moment time.Time

func (m moment) IsZero() bool { return time.Time(m).IsZero() }

func (m moment) MarshalJSON() ([]byte, error) {
	t := time.Time(m).UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return fmt.Append(nil, t.UnixMilli()), nil
	}
	return []byte(`"` + t.Format(time.RFC3339Nano) + `"`), nil
}

func (m *moment) UnmarshalJSON(b []byte) error {
	var s string
	var ms int64
	if json.Unmarshal(b, &ms) == nil && b[0] != 'n' {
		*m = moment(time.UnixMilli(ms).UTC())
		return nil
	}
	if json.Unmarshal(b, &s) == nil && s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err == nil {
			*m = moment(t.UTC())
			return nil
		}
	}
	return fmt.Errorf("%s where a time is expected, as in 2026-01-02T15:04:05.999Z", shorten(b))
}

func quote(s string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func shorten(b []byte) string {
	if len(b) > 40 {
		return strings.ToValidUTF8(string(b[:40]), "") + "…"
	}
	return string(b)
}
