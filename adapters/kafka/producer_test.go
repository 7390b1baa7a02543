package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// log is an appender that keeps values in memory; answer, if set, may refuse a batch.
type log struct {
	mu      sync.Mutex
	batches [][]string
	values  []string
	answer  func(values []string) (answer, error)
	wait    func(ctx context.Context) // before it answers
}

func (l *log) append(ctx context.Context, _ string, _ int32, batch []byte) (int64, answer, error) {
	var values []string
	r := newBatchReader(slices.Clone(batch), 0, 1<<20, nil)
	for {
		rec, ok, err := r.read()
		if err != nil {
			return -1, final, err
		}
		if !ok {
			break
		}
		values = append(values, string(rec.value))
	}
	if l.wait != nil {
		l.wait(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answer != nil {
		if a, err := l.answer(values); err != nil {
			return -1, a, err
		}
	}
	base := int64(len(l.values))
	l.values = append(l.values, values...)
	l.batches = append(l.batches, values)
	return base, final, nil
}

func testProducer(l *log, partitions int, o stagebus.ProducerOptions) *producer {
	c := &client{url: "kafka://test", timeout: 15 * time.Second}
	d := newDirectory(c)
	d.topics["t"] = &topicMeta{leaders: make([]int32, partitions), at: time.Now()}
	if o.Window == 0 {
		o = stagebus.ProducerOptions{Window: 1024, WindowBytes: 16 << 20}
	}
	p := newProducer(c, d, o, ProducerOptions{BatchBytes: 1_000_000})
	p.out = l
	return p
}

func messages(from, to int) (ms []stagebus.Message) {
	for i := from; i < to; i++ {
		ms = append(ms, stagebus.Message{Topic: "t", Key: []byte("k"), Body: fmt.Append(nil, i)})
	}
	return ms
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func submit(ctx context.Context, t *testing.T, p *producer, ms []stagebus.Message) <-chan []stagebus.Outcome {
	t.Helper()
	got := make(chan []stagebus.Outcome, 2) // room for a second call, which would be wrong
	if err := p.Submit(ctx, ms, func(os []stagebus.Outcome) { got <- slices.Clone(os) }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBatchesFormWhileARequestIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := &log{wait: func(context.Context) { <-gate }}
		p := testProducer(l, 1, stagebus.ProducerOptions{})
		ctx := deadline(t, 10*time.Second)
		first := submit(ctx, t, p, messages(0, 1))
		synctest.Wait()
		var rest []<-chan []stagebus.Outcome
		for i := 1; i < 5; i++ {
			rest = append(rest, submit(ctx, t, p, messages(i, i+1)))
		}
		synctest.Wait()
		close(gate)
		if o := <-first; o[0].Err != nil || o[0].Position != (stagebus.Position{Topic: "t", Offset: 0}) {
			t.Errorf("got %+v", o)
		}
		for i, ch := range rest {
			if o := <-ch; o[0].Err != nil || o[0].Position.Offset != int64(i+1) {
				t.Errorf("message %d: %+v", i+1, o)
			}
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
		if len(l.batches) != 2 || len(l.batches[1]) != 4 {
			t.Errorf("batches %v: want one of the first message, one of the others", l.batches)
		}
	})
}

func TestRetriableAnswersKeepTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		l := &log{answer: func([]string) (answer, error) {
			if tries++; tries < 4 {
				return retriable, kgo.NotLeaderForPartition
			}
			return final, nil
		}}
		p := testProducer(l, 1, stagebus.ProducerOptions{})
		got := submit(deadline(t, 10*time.Second), t, p, messages(0, 50))
		more := submit(deadline(t, 10*time.Second), t, p, messages(50, 100))
		for _, o := range append(<-got, <-more...) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		for i, v := range l.values {
			if v != fmt.Sprint(i) {
				t.Fatalf("at %d: %s", i, v)
			}
		}
		_ = p.Close(t.Context())
	})
}

func TestOneTooLargeMessageIsTheOnlyOneRefused(t *testing.T) {
	l := &log{answer: func(vs []string) (answer, error) {
		if slices.Contains(vs, "13") {
			return oneOfMany, kgo.MessageSizeTooLarge
		}
		return final, nil
	}}
	p := testProducer(l, 1, stagebus.ProducerOptions{})
	for i, o := range <-submit(deadline(t, 10*time.Second), t, p, messages(0, 30)) {
		if (i == 13) != errors.Is(o.Err, stagebus.ErrTooLarge) || i != 13 && o.Err != nil {
			t.Errorf("message %d: %v", i, o.Err)
		}
	}
	if len(l.values) != 29 || !slices.IsSortedFunc(l.values, byNumber) {
		t.Errorf("written %v", l.values)
	}
	_ = p.Close(t.Context())
}

func byNumber(a, b string) int {
	var x, y int
	_, _ = fmt.Sscan(a, &x)
	_, _ = fmt.Sscan(b, &y)
	return x - y
}

func TestLostAnswerIsUncertainAndNeverSentAgain(t *testing.T) {
	l := &log{answer: func([]string) (answer, error) { return uncertain, &sentError{errors.New("connection reset")} }}
	p := testProducer(l, 1, stagebus.ProducerOptions{})
	calls := 0
	inner := l.answer
	l.answer = func(vs []string) (answer, error) { calls++; return inner(vs) }
	if o := <-submit(deadline(t, 10*time.Second), t, p, messages(0, 1)); !errors.Is(o[0].Err, stagebus.ErrUncertain) {
		t.Errorf("got %v", o[0].Err)
	}
	_ = p.Close(t.Context())
	if calls != 1 {
		t.Errorf("sent %d times", calls)
	}
}

// TestEndOfContext: what is in a request is uncertain, what waits behind it definitely isn't there, and done runs once.
func TestEndOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := &log{wait: func(context.Context) { <-gate }}
		p := testProducer(l, 1, stagebus.ProducerOptions{})
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		sent := submit(ctx, t, p, messages(0, 1))
		synctest.Wait()
		queued := submit(ctx, t, p, messages(1, 2))
		cancel(cause)
		if o := <-sent; !errors.Is(o[0].Err, stagebus.ErrUncertain) || !errors.Is(o[0].Err, cause) {
			t.Errorf("in the request: %v", o[0].Err)
		}
		if o := <-queued; errors.Is(o[0].Err, stagebus.ErrUncertain) || !errors.Is(o[0].Err, cause) {
			t.Errorf("behind it: %v", o[0].Err)
		}
		close(gate)
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if len(sent)+len(queued) != 0 {
			t.Error("done ran twice")
		}
		if !slices.Equal(l.values, []string{"0"}) {
			t.Errorf("written %v: the second was given up before it left", l.values)
		}
	})
}

func TestWindowBoundsWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		p := testProducer(&log{wait: func(context.Context) { <-gate }}, 1, stagebus.ProducerOptions{Window: 2, WindowBytes: 100})
		ctx := deadline(t, time.Hour)
		first := submit(ctx, t, p, messages(0, 2))
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := p.Submit(short, messages(2, 3), func([]stagebus.Outcome) { t.Error("done of what was not accepted") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(gate)
		<-first
		big := messages(3, 13) // larger than the window: goes alone
		big[0].Body = make([]byte, 1000)
		for _, o := range <-submit(ctx, t, p, big) {
			if o.Err != nil {
				t.Error(o.Err)
			}
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := p.Submit(ctx, messages(0, 1), nil); !errors.Is(err, stagebus.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseLeavesTheRestUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testProducer(&log{wait: func(ctx context.Context) { <-ctx.Done() }}, 1, stagebus.ProducerOptions{})
		got := submit(deadline(t, time.Hour), t, p, messages(0, 1))
		synctest.Wait()
		if err := p.Close(deadline(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if o := <-got; !errors.Is(o[0].Err, stagebus.ErrUncertain) {
			t.Errorf("got %v", o[0].Err)
		}
	})
}

func TestPinnedPartitionMustExist(t *testing.T) {
	p := testProducer(&log{}, 2, stagebus.ProducerOptions{})
	ms := messages(0, 2)
	ms[1].Partition = stagebus.At(2)
	err := p.Submit(deadline(t, time.Second), ms, nil)
	var be *stagebus.BatchError
	if !errors.As(err, &be) || !errors.Is(be.Errs[0], stagebus.ErrNotSent) || !errors.Is(be.Errs[1], stagebus.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	_ = p.Close(t.Context())
}

func TestBatchCarriesNoProducerID(t *testing.T) {
	b := batchOf(0, value("x"))
	if id := int64(binary.BigEndian.Uint64(b[batchProducerID:])); id != -1 {
		t.Errorf("producer id %d: the broker would take it for an idempotent batch", id)
	}
}
