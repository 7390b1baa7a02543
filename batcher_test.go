package stagebus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
)

func TestBatcherAddsNoLatencyAndBatchesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fp := &fakeProducer{hold: true}
		b := NewBatcher(fp, BatcherOptions{InFlight: 1, MaxMessages: 4})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := b.Send(t.Context(), Message{Topic: "t", ID: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			if i == 0 && len(fp.batches) != 1 {
				t.Fatalf("a lone message waits: %d batches", len(fp.batches))
			}
		}
		fp.release()
		wg.Wait()
		var sizes []int
		n := 0
		for _, ms := range fp.batches {
			sizes = append(sizes, len(ms))
			for _, m := range ms {
				if m.ID != fmt.Sprint(n) {
					t.Errorf("message %s at place %d", m.ID, n)
				}
				n++
			}
		}
		if fmt.Sprint(sizes) != "[1 4 4 1]" {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestBatcherLimitsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fp := &fakeProducer{hold: true}
		b := NewBatcher(fp, BatcherOptions{InFlight: 1, MaxBytes: 100})
		var wg sync.WaitGroup
		for _, size := range []int{1, 60, 60, 500, 1} {
			wg.Go(func() { _ = b.Send(t.Context(), Message{Topic: "t", Body: make([]byte, size)}) })
			synctest.Wait()
		}
		fp.release()
		wg.Wait()
		var sizes []int
		for _, ms := range fp.batches {
			sizes = append(sizes, len(ms))
		}
		if fmt.Sprint(sizes) != "[1 1 1 1 1]" {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestBatcherOneBadMessageHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad")
		fp := &fakeProducer{hold: true}
		fp.refuse = func(ms []Message) error {
			var be *BatchError
			for i := range ms {
				if ms[i].ID == "bad" {
					be = refuse(be, len(ms), i, bad)
				}
			}
			if be == nil {
				return nil
			}
			return be
		}
		b := NewBatcher(fp, BatcherOptions{InFlight: 1})
		var wg sync.WaitGroup
		for _, id := range []string{"first", "a", "bad", "b"} {
			wg.Go(func() {
				err := b.Send(t.Context(), Message{Topic: "t", ID: id})
				if (id == "bad") != errors.Is(err, bad) || id != "bad" && err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
			synctest.Wait()
		}
		fp.release()
		wg.Wait()
		if len(fp.batches) != 2 || len(fp.batches[1]) != 2 {
			t.Errorf("sent %v", fp.batches)
		}
	})
}

func TestBatcherContextWithdrawsOrIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fp := &fakeProducer{hold: true}
		b := NewBatcher(fp, BatcherOptions{InFlight: 1})
		ctx, cancel := context.WithCancel(t.Context())
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = b.Send(ctx, Message{Topic: "t", ID: fmt.Sprint(i)}) })
			synctest.Wait()
		}
		cancel()
		wg.Wait()
		if !errors.Is(errs[0], ErrUncertain) || !errors.Is(errs[0], context.Canceled) {
			t.Errorf("the message on its way: %v", errs[0])
		}
		if errors.Is(errs[1], ErrUncertain) || !errors.Is(errs[1], context.Canceled) {
			t.Errorf("the message that waited: %v", errs[1])
		}
		fp.release()
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(fp.batches) != 1 {
			t.Errorf("the withdrawn message was sent: %v", fp.batches)
		}
	})
}

func TestBatcherCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fp := &fakeProducer{hold: true}
		b := NewBatcher(fp, BatcherOptions{})
		sent := make(chan error, 1)
		go func() { sent <- b.Send(t.Context(), Message{Topic: "t"}) }()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- b.Close(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("Close did not wait: %v", err)
		default:
		}
		if err := b.Send(t.Context(), Message{Topic: "t"}); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
		fp.release()
		if err := errors.Join(<-sent, <-closed, b.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func TestSendReportsEachMessage(t *testing.T) {
	fp := &fakeProducer{outcome: func(m Message) error {
		if m.ID == "2" {
			return ErrUncertain
		}
		return nil
	}}
	err := Send(t.Context(), fp, Message{ID: "1"}, Message{ID: "2"})
	var be *BatchError
	if !errors.As(err, &be) || be.Errs[0] != nil || !errors.Is(be.Errs[1], ErrUncertain) {
		t.Errorf("got %v", err)
	}
	if err := Send(t.Context(), fp); err != nil {
		t.Error(err)
	}
}

func BenchmarkBatcher(b *testing.B) {
	bt := NewBatcher(&fakeProducerNull{}, BatcherOptions{})
	m := Message{Topic: "t", Body: make([]byte, 100)}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := bt.Send(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fakeProducerNull accepts and forgets.
type fakeProducerNull struct{}

func (fakeProducerNull) Submit(_ context.Context, ms []Message, done func([]Outcome)) error {
	done(make([]Outcome, len(ms)))
	return nil
}
func (fakeProducerNull) Close(context.Context) error { return nil }
