package stagebus

import (
	"errors"
	"slices"
	"testing"
)

func TestCloseEndsConsumersBeforeProducers(t *testing.T) {
	d := &fakeDriver{producer: &fakeProducer{}, consumer: &fakeConsumer{}}
	b := NewBroker(d, BrokerOptions{})
	if _, err := b.Producer(t.Context(), ProducerOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Consumer(t.Context(), ConsumerOptions{Topics: []string{"t"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"consumer", "producer", "driver"}; !slices.Equal(d.log, want) {
		t.Errorf("closed %v, want %v", d.log, want)
	}
	if _, err := b.Producer(t.Context(), ProducerOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Producer after Close: %v", err)
	}
	if _, err := b.Consumer(t.Context(), ConsumerOptions{Topics: []string{"t"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Consumer after Close: %v", err)
	}
}

func TestWhatIsClosedByItsUserIsForgotten(t *testing.T) {
	d := &fakeDriver{producer: &fakeProducer{}, consumer: &fakeConsumer{}}
	b := NewBroker(d, BrokerOptions{})
	p, err := b.Producer(t.Context(), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"producer", "driver"}; !slices.Equal(d.log, want) {
		t.Errorf("closed %v, want %v", d.log, want)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	cause := errors.New("EOF")
	err := error(&Error{Op: "send", Broker: "kafka://h:9092", Topic: "orders", Kind: ErrNoRoute, Cause: cause, Do: "declare it"})
	if want := `send "orders" at kafka://h:9092: no such topic to send to: EOF; declare it`; err.Error() != want {
		t.Errorf("got %s", err)
	}
	if !errors.Is(err, ErrNoRoute) || !errors.Is(err, cause) || errors.Is(err, ErrAuth) {
		t.Error("errors.Is")
	}
	be := &BatchError{Errs: []error{nil, err, ErrStale}}
	if want := "2 of 3 failed, the first at 1: " + err.Error(); be.Error() != want {
		t.Errorf("got %s", be)
	}
	if !errors.Is(be, ErrStale) || !errors.Is(be, ErrNoRoute) {
		t.Error("errors.Is through BatchError")
	}
}
