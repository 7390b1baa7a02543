package amqp

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// Headers of a stagebus message are strings, those of AMQP have types. A value that isn't a plain string becomes a canonical string,
// and its type is kept in one ordinary header, headerTypes, a form of NAME=LETTER. It travels wherever the message is copied, Kafka too,
// and is consumed when the message is written to AMQP again: the value gets its type back, unless it no longer reads as one.
//
// Letters are those of the wire (amqp091-go's): t bool, b B s u I i l the integers, f d floats, D decimal, S string, x bytes, T time, A array,
// F table, V void. A string of UTF-8, and bytes that aren't UTF-8, need no mark: so they are written. An array of two or more of those is a
// header given several times.
const headerTypes = "stagebus-amqp-types"

// maxDepth is how deep arrays and tables may nest: what the client library reads.
const maxDepth = 32

// headersFrom returns a table as strings in order of name, with headerTypes if need be.
func headersFrom(table amqp091.Table) []stagebus.Header {
	if len(table) == 0 {
		return nil
	}
	hs := make([]stagebus.Header, 0, len(table)+1)
	var types url.Values
	for _, name := range slices.Sorted(maps.Keys(table)) {
		v := table[name]
		if many, ok := v.([]any); ok && repeated(many) {
			for _, one := range many {
				s, _ := plain(one)
				hs = append(hs, stagebus.Header{Key: name, Value: s})
			}
			continue
		}
		s, ok := plain(v)
		if !ok {
			var letter string
			letter, s = format(v)
			if types == nil {
				types = url.Values{}
			}
			types.Set(name, letter)
		}
		hs = append(hs, stagebus.Header{Key: name, Value: s})
	}
	if types != nil {
		hs = append(hs, stagebus.Header{Key: headerTypes, Value: types.Encode()})
	}
	return hs
}

// tableFrom is the reverse.
func tableFrom(hs []stagebus.Header) amqp091.Table {
	if len(hs) == 0 {
		return nil
	}
	count := make(map[string]int, len(hs))
	var types url.Values
	for _, h := range hs {
		count[h.Key]++
	}
	if count[headerTypes] == 1 {
		for _, h := range hs {
			if h.Key == headerTypes {
				if form, err := url.ParseQuery(h.Value); err == nil { // else a header like any other
					types = form
				}
			}
		}
	}
	table := make(amqp091.Table, len(hs))
	for _, h := range hs {
		if h.Key == headerTypes && types != nil {
			continue
		}
		var v any = str(h.Value)
		if count[h.Key] > 1 {
			many, _ := table[h.Key].([]any)
			table[h.Key] = append(many, v)
			continue
		}
		if letter := types.Get(h.Key); letter != "" {
			if typed, ok := parse(letter, h.Value, 0); ok {
				v = typed
			}
		}
		table[h.Key] = v
	}
	return table
}

// str is how a plain string is written: as text where it is text, so that other clients read it as such.
func str(s string) any {
	if utf8.ValidString(s) {
		return s
	}
	return []byte(s)
}

// plain returns a value that str would have written.
func plain(v any) (s string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, utf8.ValidString(v)
	case []byte:
		return string(v), !utf8.Valid(v)
	}
	return "", false
}

func repeated(vs []any) bool {
	if len(vs) < 2 {
		return false
	}
	for _, v := range vs {
		if _, ok := plain(v); !ok {
			return false
		}
	}
	return true
}

// format returns the letter and the canonical string of a value. Those that the client library can't have read come out as Go prints them, as strings.
func format(v any) (letter, s string) {
	switch v := v.(type) {
	case nil:
		return "V", ""
	case bool:
		return "t", strconv.FormatBool(v)
	case int8:
		return "b", strconv.FormatInt(int64(v), 10)
	case uint8:
		return "B", strconv.FormatUint(uint64(v), 10)
	case int16:
		return "s", strconv.FormatInt(int64(v), 10)
	case uint16:
		return "u", strconv.FormatUint(uint64(v), 10)
	case int32:
		return "I", strconv.FormatInt(int64(v), 10)
	case uint32:
		return "i", strconv.FormatUint(uint64(v), 10)
	case int64:
		return "l", strconv.FormatInt(v, 10)
	case float32:
		if math.IsNaN(float64(v)) {
			return "f", fmt.Sprintf("NaN:%08x", math.Float32bits(v)) // their payloads differ
		}
		return "f", strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		if math.IsNaN(v) {
			return "d", fmt.Sprintf("NaN:%016x", math.Float64bits(v))
		}
		return "d", strconv.FormatFloat(v, 'g', -1, 64)
	case amqp091.Decimal:
		return "D", fmt.Sprintf("%de-%d", v.Value, v.Scale)
	case string:
		return "S", v
	case []byte:
		return "x", string(v)
	case time.Time:
		if u := v.UTC(); u.Year() >= 1 && u.Year() <= 9999 {
			return "T", u.Format(time.RFC3339)
		}
		return "T", strconv.FormatInt(v.Unix(), 10)
	case []any:
		b, _ := json.Marshal(formatArray(v)) // of slices and strings only: can't fail
		return "A", string(b)
	case amqp091.Table:
		b, _ := json.Marshal(formatTable(v))
		return "F", string(b)
	}
	return "S", fmt.Sprint(v)
}

// Inside of arrays and tables each value is a pair of letter and string (or list), and a table a list of triples in order of name. JSON holds
// text only: other bytes are base64, under the letter with a star.
func formatArray(vs []any) []any {
	list := make([]any, len(vs))
	for i, v := range vs {
		list[i] = formatNested(v)
	}
	return list
}

func formatTable(t amqp091.Table) []any {
	list := make([]any, 0, len(t))
	for _, name := range slices.Sorted(maps.Keys(t)) {
		key := []any{"S", name}
		if !utf8.ValidString(name) {
			key = []any{"S*", base64.StdEncoding.EncodeToString([]byte(name))}
		}
		list = append(list, append(key, formatNested(t[name])...))
	}
	return list
}

func formatNested(v any) []any {
	switch v := v.(type) {
	case []any:
		return []any{"A", formatArray(v)}
	case amqp091.Table:
		return []any{"F", formatTable(v)}
	}
	letter, s := format(v)
	if !utf8.ValidString(s) {
		return []any{letter + "*", base64.StdEncoding.EncodeToString([]byte(s))}
	}
	return []any{letter, s}
}

// parse is the reverse of format; false: s isn't a value of that type.
func parse(letter, s string, depth int) (v any, ok bool) {
	var err error
	var n int64
	var u uint64
	switch letter {
	case "V":
		return nil, s == ""
	case "t":
		return s == "true", s == "true" || s == "false"
	case "b":
		n, err = strconv.ParseInt(s, 10, 8)
		return int8(n), err == nil
	case "B":
		u, err = strconv.ParseUint(s, 10, 8)
		return uint8(u), err == nil
	case "s":
		n, err = strconv.ParseInt(s, 10, 16)
		return int16(n), err == nil
	case "u":
		u, err = strconv.ParseUint(s, 10, 16)
		return uint16(u), err == nil
	case "I":
		n, err = strconv.ParseInt(s, 10, 32)
		return int32(n), err == nil
	case "i":
		u, err = strconv.ParseUint(s, 10, 32)
		return uint32(u), err == nil
	case "l":
		n, err = strconv.ParseInt(s, 10, 64)
		return n, err == nil
	case "f":
		if hex, nan := strings.CutPrefix(s, "NaN:"); nan {
			u, err = strconv.ParseUint(hex, 16, 32)
			return math.Float32frombits(uint32(u)), err == nil
		}
		f, err := strconv.ParseFloat(s, 32)
		return float32(f), err == nil
	case "d":
		if hex, nan := strings.CutPrefix(s, "NaN:"); nan {
			u, err = strconv.ParseUint(hex, 16, 64)
			return math.Float64frombits(u), err == nil
		}
		f, err := strconv.ParseFloat(s, 64)
		return f, err == nil
	case "D":
		value, scale, found := strings.Cut(s, "e-")
		n, err = strconv.ParseInt(value, 10, 32)
		u, err2 := strconv.ParseUint(scale, 10, 8)
		return amqp091.Decimal{Scale: uint8(u), Value: int32(n)}, found && err == nil && err2 == nil
	case "S":
		return s, true
	case "x":
		return []byte(s), true
	case "T":
		if n, err = strconv.ParseInt(s, 10, 64); err == nil {
			return time.Unix(n, 0), true
		}
		t, err := time.Parse(time.RFC3339, s)
		return time.Unix(t.Unix(), 0), err == nil
	case "A", "F":
		var list []any
		if json.Unmarshal([]byte(s), &list) != nil {
			return nil, false
		}
		return parseList(letter, list, depth)
	}
	return nil, false
}

func parseList(letter string, list []any, depth int) (any, bool) {
	if depth >= maxDepth {
		return nil, false
	}
	if letter == "A" {
		vs := make([]any, len(list))
		for i, item := range list {
			pair, _ := item.([]any)
			if len(pair) != 2 {
				return nil, false
			}
			v, ok := parseNested(pair, depth+1)
			if !ok {
				return nil, false
			}
			vs[i] = v
		}
		return vs, true
	}
	t := make(amqp091.Table, len(list))
	for _, item := range list {
		entry, _ := item.([]any)
		if len(entry) != 4 {
			return nil, false
		}
		name, ok := parseNested(entry[:2], depth+1)
		key, text := name.(string)
		if !ok || !text || len(key) > maxShort {
			return nil, false
		}
		v, ok := parseNested(entry[2:], depth+1)
		if !ok {
			return nil, false
		}
		t[key] = v
	}
	return t, true
}

func parseNested(pair []any, depth int) (any, bool) {
	letter, _ := pair[0].(string)
	switch value := pair[1].(type) {
	case []any:
		if letter == "A" || letter == "F" {
			return parseList(letter, value, depth)
		}
	case string:
		bare, coded := strings.CutSuffix(letter, "*")
		if coded {
			b, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, false
			}
			value = string(b)
		}
		if bare != "A" && bare != "F" {
			return parse(bare, value, depth)
		}
	}
	return nil, false
}
