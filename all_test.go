package stagebus

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

func bodies(ss ...string) []Delivery {
	ds := make([]Delivery, len(ss))
	for i, s := range ss {
		ds[i] = Delivery{Message: Message{Body: []byte(s)}, Token: Token{Seq: int64(i)}}
	}
	return ds
}

func TestAllSettlesByHowTheLoopGoesOn(t *testing.T) {
	ds := bodies("ok", "later", "bad", "unreadable", "stop", "never")
	ds[3].Err = errors.New("no key")
	c := &fakeConsumer{ds: ds}
	for item, err := range All(t.Context(), c) {
		if err != nil {
			t.Fatal(err)
		}
		switch string(item.Body) {
		case "later":
			if err := item.Retry(time.Second); err != nil {
				t.Error(err)
			}
			if err := item.Reject("twice"); !errors.Is(err, ErrStale) {
				t.Errorf("settled twice: %v", err)
			}
		case "bad":
			if err := item.Reject("bad"); err != nil {
				t.Error(err)
			}
		}
		if string(item.Body) == "stop" {
			break
		}
	}
	want := []Verdict{Done, Retry(time.Second), Reject("bad"), Reject("no key"), Release}
	if !reflect.DeepEqual(c.verdicts, want) {
		t.Errorf("verdicts %v, want %v", c.verdicts, want)
	}
}

func TestAllGivesBackOnPanic(t *testing.T) {
	c := &fakeConsumer{ds: bodies("boom")}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		for _, err := range All(t.Context(), c) {
			panic(fmt.Sprint("boom", err))
		}
	}()
	if !reflect.DeepEqual(c.verdicts, []Verdict{Release}) {
		t.Errorf("verdicts %v", c.verdicts)
	}
}

func TestAllEnds(t *testing.T) {
	for _, err := range All(t.Context(), &fakeConsumer{}) {
		t.Errorf("a closed consumer ends the loop without a pair, got %v", err)
	}
	broken := errors.New("broken")
	for _, c := range []*fakeConsumer{{end: broken}, {ds: bodies("x"), fail: broken}} {
		var last error
		for _, err := range All(t.Context(), c) {
			last = err
		}
		if !errors.Is(last, broken) {
			t.Errorf("the last pair has %v", last)
		}
	}
	// A lane that ended while the loop's body ran is not the loop's failure.
	for _, err := range All(t.Context(), &fakeConsumer{ds: bodies("x"), fail: ErrStale}) {
		if err != nil {
			t.Error(err)
		}
	}
}
