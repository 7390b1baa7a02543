package adaptertest

import (
	"fmt"
	"strings"

	"github.com/stagebus/stagebus"
)

var headerCases = []Case{
	{Name: "headers/values", Proves: "header values arrive byte for byte: control characters, spaces at the ends, bytes that are no UTF-8", run: headerValuesCase},
	{Name: "headers/empty", Proves: "a header with an empty value arrives", run: headerEmptyCase},
	{Name: "headers/names", Proves: "header names arrive as they are: case, spaces, quotes, unicode, 255 bytes", run: headerNamesCase},
	{Name: "headers/duplicates", Proves: "headers of one name all arrive, in order, also among others", run: headerDuplicatesCase},
	{Name: "headers/order", Proves: "headers arrive in the order in which they were sent", run: headerOrderCase},
	{Name: "headers/many", Proves: "a hundred headers and 60 KiB of headers arrive", run: headerManyCase},
	{Name: "headers/extensions", Proves: "CloudEvents extensions keep their name ce_… from end to end", run: headerExtensionsCase},
}

// withHeaders makes a message twice, bare and with an attribute, since attributes travel among the headers.
func withHeaders(hs ...stagebus.Header) []stagebus.Message {
	return []stagebus.Message{
		{Body: []byte("bare"), Headers: hs},
		{Body: []byte("event"), Headers: hs, ID: "1", Type: "t", Key: []byte("k")},
	}
}

func headerValuesCase(e *env) {
	ascii := make([]byte, 128)
	for i := range ascii {
		ascii[i] = byte(i)
	}
	var hs []stagebus.Header
	for i, v := range []string{
		string(ascii), string(allBytes()), "\xff\xfe", " leading", "trailing ", "\ttab\n", "\r\n", "日本語 🚌", `"quoted" 'both' \ %41 a=b&c;d,e`,
		"true", "1", "null", "[]", strings.Repeat("v", 8<<10), "\x00",
	} {
		hs = append(hs, stagebus.Header{Key: fmt.Sprintf("h%02d", i), Value: v})
	}
	e.roundTrip(withHeaders(hs...)...)
}

func headerEmptyCase(e *env) {
	ms := withHeaders(stagebus.Header{Key: "empty", Value: ""})
	ms = append(ms, withHeaders(stagebus.Header{Key: "a", Value: "1"}, stagebus.Header{Key: "empty", Value: ""}, stagebus.Header{Key: "z", Value: ""})...)
	e.roundTrip(ms...)
}

func headerNamesCase(e *env) {
	var hs []stagebus.Header
	for _, k := range []string{
		"plain", "Plain", "PLAIN", "with space", " at the ends ", `"quoted"`, "it's", "a.b/c:d=e;f,g", "ключ", "🚌", "x-death-like", "id", "type",
		"key", "topic", "Content-Length", "traceparent", "\x01control", "new\nline", strings.Repeat("n", 255), "1", "-", "$", "ce", "stagebus-own",
	} {
		hs = append(hs, stagebus.Header{Key: k, Value: "value of " + k})
	}
	e.roundTrip(withHeaders(hs...)...)
}

func headerDuplicatesCase(e *env) {
	h := func(k, v string) stagebus.Header { return stagebus.Header{Key: k, Value: v} }
	ms := withHeaders(h("a", "1"), h("a", "2"), h("a", "1"))
	ms = append(ms, withHeaders(h("a", "1"), h("b", "1"), h("a", ""), h("B", "1"), h("b", "2"), h("a", "3"))...)
	ms = append(ms, withHeaders(h("a", ""), h("a", ""))...)
	e.roundTrip(ms...)
}

func headerOrderCase(e *env) {
	var hs []stagebus.Header
	for _, k := range strings.Fields("m z a y b x c w d v e") {
		hs = append(hs, stagebus.Header{Key: k, Value: k})
	}
	e.roundTrip(withHeaders(hs...)...)
}

func headerManyCase(e *env) {
	var many, large []stagebus.Header
	for i := range 100 {
		many = append(many, stagebus.Header{Key: fmt.Sprintf("header-%d", (i*37)%100), Value: strings.Repeat("v", i)})
	}
	for i := range 30 {
		large = append(large, stagebus.Header{Key: fmt.Sprintf("large-%02d", i), Value: strings.Repeat("v", 2<<10)})
	}
	e.roundTrip(append(withHeaders(many...), withHeaders(large...)...)...)
}

func headerExtensionsCase(e *env) {
	e.roundTrip(withHeaders(
		stagebus.Header{Key: "ce_traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		stagebus.Header{Key: "ce_sequence", Value: "000042"},
		stagebus.Header{Key: "own", Value: "1"},
	)...)
}
