package stagebus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMessagesAreCheckedBeforeTheAdapter(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := make(Headers, 1025)
	for i := range many {
		many[i] = Header{"h", ""}
	}
	for name, c := range map[string]struct {
		m    Message
		want error
	}{
		"plain":               {Message{Topic: "t"}, nil},
		"no topic":            {Message{}, ErrInvalid},
		"bad topic":           {Message{Topic: "a b"}, ErrInvalid},
		"negative partition":  {Message{Topic: "t", Partition: -1}, ErrInvalid},
		"long attribute":      {Message{Topic: "t", ID: long}, ErrInvalid},
		"attribute of 255":    {Message{Topic: "t", ID: long[:255]}, nil},
		"attribute not UTF-8": {Message{Topic: "t", Type: "\xff"}, ErrInvalid},
		"attribute with LF":   {Message{Topic: "t", Subject: "a\nb"}, ErrInvalid},
		"year 10000":          {Message{Topic: "t", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, ErrInvalid},
		"deadline before 0":   {Message{Topic: "t", Deadline: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}, ErrInvalid},
		"header of 300 bytes": {Message{Topic: "t", Headers: Headers{{strings.Repeat("k", 300), ""}}}, ErrInvalid},
		"header without name": {Message{Topic: "t", Headers: Headers{{"", "v"}}}, ErrInvalid},
		"binary header value": {Message{Topic: "t", Headers: Headers{{"k", "\x00\xff"}}}, nil},
		"reserved header":     {Message{Topic: "t", Headers: Headers{{"CE_Id", "v"}}}, ErrInvalid},
		"extension":           {Message{Topic: "t", Headers: Headers{{"ce_traceparent", "v"}}}, nil},
		"200 KB of headers":   {Message{Topic: "t", Headers: Headers{{"k", strings.Repeat("v", 200_000)}}}, ErrTooLarge},
		"1,025 headers":       {Message{Topic: "t", Headers: many}, ErrTooLarge},
		"body at the limit":   {Message{Topic: "t", Body: make([]byte, 1000)}, nil},
		"body over it":        {Message{Topic: "t", Body: make([]byte, 1001)}, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			fp := &fakeProducer{}
			b := NewBroker(&fakeDriver{producer: fp, caps: Capabilities{MaxMessage: 1000}}, BrokerOptions{})
			p, err := b.Producer(t.Context(), ProducerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			err = Send(t.Context(), p, Message{Topic: "fine"}, c.m)
			if c.want == nil {
				if err != nil || len(fp.batches) != 1 {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var be *BatchError
			if !errors.As(err, &be) || len(be.Errs) != 2 {
				t.Fatalf("got %v, want a BatchError for two messages", err)
			}
			if !errors.Is(be.Errs[0], ErrNotSent) || !errors.Is(be.Errs[1], c.want) {
				t.Errorf("got %v and %v", be.Errs[0], be.Errs[1])
			}
			if len(fp.batches) != 0 {
				t.Error("a refused batch reached the adapter")
			}
		})
	}
}

func TestUserLimitLowersTheBrokers(t *testing.T) {
	b := NewBroker(&fakeDriver{producer: &fakeProducer{}, caps: Capabilities{MaxMessage: 1000}}, BrokerOptions{MaxMessage: 10})
	p, err := b.Producer(t.Context(), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Send(t.Context(), p, Message{Topic: "t", Body: make([]byte, 11)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestSubmitAlwaysHasADeadline(t *testing.T) {
	fp := &fakeProducer{}
	b := NewBroker(&fakeDriver{producer: fp}, BrokerOptions{})
	p, err := b.Producer(t.Context(), ProducerOptions{Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := Send(t.Context(), p, Message{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	d, ok := fp.ctx.Deadline()
	if !ok || time.Until(d) > time.Hour || time.Until(d) < 59*time.Minute {
		t.Errorf("deadline %v, %v", d, ok)
	}
	if fp.ctx.Err() == nil {
		t.Error("the time-out's context was not released after the outcome")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Send(ctx, p, Message{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if fp.ctx != ctx {
		t.Error("a context with a deadline was replaced")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	b := NewBroker(&fakeDriver{producer: &fakeProducer{}, consumer: &fakeConsumer{}}, BrokerOptions{})
	for name, o := range map[string]ConsumerOptions{
		"no topic":            {},
		"bad topic":           {Topics: []string{"a b"}},
		"twice":               {Topics: []string{"a", "a"}},
		"bad group":           {Topics: []string{"a"}, Group: "a b"},
		"negative prefetch":   {Topics: []string{"a"}, Prefetch: -1},
		"group of ephemeral":  {Topics: []string{"a"}, Mode: Ephemeral, Group: "g"},
		"partitions of group": {Topics: []string{"a"}, Partitions: []int32{1}},
		"unknown mode":        {Topics: []string{"a"}, Mode: 9},
		"negative offset":     {Topics: []string{"a"}, Start: Start{Kind: StartOffset, Offset: -1}},
	} {
		if _, err := b.Consumer(t.Context(), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Producer(t.Context(), ProducerOptions{Window: -1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("negative window: %v", err)
	}
	c, err := b.Consumer(t.Context(), ConsumerOptions{Topics: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(t.Context(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty dst: %v", err)
	}
	if _, err := b.Tx(t.Context(), ProducerOptions{}, ConsumerOptions{Topics: []string{"a"}}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Tx of a driver without: %v", err)
	}
	for _, err := range []error{
		b.Admin().Declare(t.Context(), TopicSpec{Name: "a--b"}),
		b.Admin().Declare(t.Context(), TopicSpec{Name: "queue:x"}),
		b.Admin().Declare(t.Context(), TopicSpec{Name: "x", Partitions: -1}),
		b.Admin().Declare(t.Context(), TopicSpec{Name: "x", Groups: []string{"a b"}}),
		b.Admin().Delete(t.Context(), ""),
		b.Admin().Purge(t.Context(), "x", "a b"),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("admin: %v", err)
		}
	}
}

func TestReservedNames(t *testing.T) {
	for name, want := range map[string]bool{
		"ce_id": true, "CE_Type": true, "cloudEvents_time": true, "cloudEvents:source": true, "cloudEvents_custom": true,
		"Content-Type": true, "stagebus-attempt": true, "stagebus-nil": true,
		"ce_custom": false, "x": false, "content-length": false, "stagebus-dead-reason": false, "stagebus-amqp-types": false, "celery": false,
	} {
		if Reserved(name) != want {
			t.Errorf("Reserved(%q) = %v", name, !want)
		}
	}
}
