package stagebus

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// tag appends its name to the body on the way out and takes it off on the way in.
func tag(name string, l Layer) Middleware {
	return Transform(name, l, func(m *Message) error {
		m.Body = append(slices.Clone(m.Body), name...)
		return nil
	}, func(d *Delivery) error {
		s, ok := strings.CutSuffix(string(d.Body), name)
		if !ok {
			d.Body = []byte("spoiled")
			return errors.New("not tagged " + name)
		}
		d.Body = []byte(s)
		return nil
	})
}

func TestStackIsAppliedOutermostFirstAndUndoneInReverse(t *testing.T) {
	s, err := NewStack(tag("-observe", Observe), tag("-zip", Compress), tag("-zip2", Compress), tag("-seal", Encrypt))
	if err != nil {
		t.Fatal(err)
	}
	fp := &fakeProducer{}
	fc := &fakeConsumer{ds: []Delivery{
		{Message: Message{Body: []byte("x-observe-zip-zip2-seal")}},
		{Message: Message{Body: []byte("x-observe-zip2-zip-seal")}},
	}}
	b := NewBroker(&fakeDriver{producer: fp, consumer: fc}, BrokerOptions{Stack: s})
	p, err := b.Producer(t.Context(), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := Message{Topic: "t", Body: []byte("x")}
	if err := Send(t.Context(), p, m); err != nil {
		t.Fatal(err)
	}
	if got := string(fp.batches[0][0].Body); got != "x-observe-zip-zip2-seal" {
		t.Errorf("sent %q", got)
	}
	if string(m.Body) != "x" {
		t.Error("the caller's message was changed")
	}
	c, err := b.Consumer(t.Context(), ConsumerOptions{Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	var ds [2]Delivery
	if n, err := c.Receive(t.Context(), ds[:]); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if string(ds[0].Body) != "x" || ds[0].Err != nil {
		t.Errorf("received %q, %v", ds[0].Body, ds[0].Err)
	}
	// The second was not made by this stack: the layer that fails leaves it as it got it, and those outside leave it alone.
	if ds[1].Err == nil || string(ds[1].Body) != "x-observe-zip2-zip" {
		t.Errorf("received %q, %v", ds[1].Body, ds[1].Err)
	}
}

func TestStackRefusesAWrongOrder(t *testing.T) {
	_, err := NewStack(tag("seal", Encrypt), tag("zip", Compress))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "swap them") {
		t.Errorf("got %v", err)
	}
	if _, err := NewStack(); err != nil {
		t.Error(err)
	}
}

func TestTransformRefusesTheWholeSubmit(t *testing.T) {
	bad := errors.New("bad")
	s, err := NewStack(Transform("check", Policy, func(m *Message) error {
		if m.ID == "" {
			return bad
		}
		return nil
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	fp := &fakeProducer{}
	err = Send(t.Context(), s.WrapProducer(fp), Message{ID: "1"}, Message{}, Message{ID: "3"})
	var be *BatchError
	if !errors.As(err, &be) || !errors.Is(be.Errs[1], bad) || !errors.Is(be.Errs[2], ErrNotSent) || len(fp.batches) != 0 {
		t.Errorf("got %v, %d batches", err, len(fp.batches))
	}
}
