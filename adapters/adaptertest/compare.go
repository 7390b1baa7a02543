package adaptertest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// diff says what of want is not in got, or "". Time is exact where want has attributes for it to travel with, else to a second,
// and anything where want has none.
func diff(want, got *stagebus.Message) string {
	var ds []string
	add := func(what string, w, g any) { ds = append(ds, fmt.Sprintf("%s is %v, want %v", what, g, w)) }
	if d := diffBytes(want.Body, got.Body); d != "" {
		ds = append(ds, "body "+d)
	}
	if d := diffBytes(want.Key, got.Key); d != "" {
		ds = append(ds, "key "+d)
	}
	if d := diffHeaders(want.Headers, got.Headers); d != "" {
		ds = append(ds, d)
	}
	attrs := false
	ws, gs := attributes(want), attributes(got)
	for i := range ws {
		if ws[i].Value != gs[i].Value {
			add(ws[i].Key, fmt.Sprintf("%.300q", ws[i].Value), fmt.Sprintf("%.300q", gs[i].Value))
		}
		attrs = attrs || i > 0 && ws[i].Value != ""
	}
	if want.Priority != got.Priority {
		add("Priority", want.Priority, got.Priority)
	}
	if !want.Deadline.Equal(got.Deadline) {
		add("Deadline", want.Deadline, got.Deadline)
	}
	switch off := got.Time.Sub(want.Time).Abs(); {
	case want.Time.IsZero():
	case attrs && off != 0:
		add("Time", want.Time.Format(time.RFC3339Nano), got.Time.Format(time.RFC3339Nano))
	case off >= time.Second:
		add("Time", want.Time, got.Time)
	}
	return strings.Join(ds, "; ")
}

// attributes lists the topic, then the attributes that are strings.
func attributes(m *stagebus.Message) []stagebus.Header {
	return []stagebus.Header{
		{Key: "Topic", Value: m.Topic},
		{Key: "ID", Value: m.ID}, {Key: "Source", Value: m.Source}, {Key: "Type", Value: m.Type},
		{Key: "Subject", Value: m.Subject}, {Key: "ContentType", Value: m.ContentType},
		{Key: "ContentEncoding", Value: m.ContentEncoding}, {Key: "CorrelationID", Value: m.CorrelationID},
		{Key: "ReplyTo", Value: m.ReplyTo}, {Key: "Audience", Value: m.Audience},
	}
}

// diffBytes tells nil from empty, and never prints a large body.
func diffBytes(want, got []byte) string {
	switch {
	case (want == nil) != (got == nil):
		return fmt.Sprintf("is %s, want %s", clip(got), clip(want))
	case bytes.Equal(want, got):
		return ""
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	return fmt.Sprintf("has %d bytes, want %d; from byte %d on it is %s, want %s", len(got), len(want), at, clip(got[at:]), clip(want[at:]))
}

func clip(b []byte) string {
	switch {
	case b == nil:
		return "nil"
	case len(b) > 24:
		return fmt.Sprintf("%q…", b[:24])
	}
	return fmt.Sprintf("%q", b)
}

func diffHeaders(want, got stagebus.Headers) string {
	if slices.Equal(want, got) {
		return ""
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("header %d of %d is %.200q: %.200q, want %.200q: %.200q (of %d)",
				i, len(got), got[i].Key, got[i].Value, want[i].Key, want[i].Value, len(want))
		}
	}
	return fmt.Sprintf("%d headers, want %d: %.300q", len(got), len(want), names(got))
}

func names(hs stagebus.Headers) []string {
	ns := make([]string, len(hs))
	for i := range hs {
		ns[i] = hs[i].Key
	}
	return ns
}

func tokens(ds []stagebus.Delivery) []stagebus.Token {
	ts := make([]stagebus.Token, len(ds))
	for i := range ds {
		ts[i] = ds[i].Token
	}
	return ts
}

// bodies lists what was received, shortened.
func bodies(ds []stagebus.Delivery) string {
	var s []string
	for i := range ds {
		if i == 10 {
			s = append(s, fmt.Sprintf("and %d more", len(ds)-i))
			break
		}
		s = append(s, clip(ds[i].Body))
	}
	return "[" + strings.Join(s, " ") + "]"
}

func describe(d *stagebus.Delivery) string {
	return fmt.Sprintf("%s of %q (attempt %d, redelivered %v, position %v, error %v)", clip(d.Body), d.Topic, d.Attempt, d.Redelivered, d.Position, d.Err)
}

func verdict(v stagebus.Verdict) string {
	switch v.Kind {
	case stagebus.KindRelease:
		return "Release"
	case stagebus.KindDone:
		return "Done"
	case stagebus.KindRetry:
		return fmt.Sprintf("Retry(%v)", v.After)
	case stagebus.KindReject:
		return fmt.Sprintf("Reject(%.40q)", v.Reason)
	}
	return fmt.Sprintf("Kind(%d)", v.Kind)
}

// equalSets compares without regard to order.
func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
