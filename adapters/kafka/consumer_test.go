package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
	"github.com/stagebus/stagebus/internal/envelope"
)

// shelf is a fetcher over batches in memory, one partition.
type shelf struct {
	mu      sync.Mutex
	batches [][]byte // each of one record, at the offset of its index
	asked   int
}

func (s *shelf) fetch(ctx context.Context, _ int32, wait time.Duration, parts []fetchPart) ([]fetchResult, error) {
	s.mu.Lock()
	s.asked++
	r := fetchResult{place: parts[0].place, end: int64(len(s.batches))}
	if o := parts[0].offset; o < int64(len(s.batches)) {
		for _, b := range s.batches[o:] {
			r.records = append(r.records, b...)
		}
	}
	s.mu.Unlock()
	if r.records == nil {
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
	return []fetchResult{r}, nil
}

// testConsumer has one lane of topic t, read from s.
func testConsumer(t *testing.T, s *shelf, o stagebus.ConsumerOptions, retry bool, hook stagebus.Hook) *consumer {
	t.Helper()
	cl := &client{url: "kafka://test", timeout: time.Second, hook: hook}
	d := newDirectory(cl)
	d.topics["t"] = &topicMeta{leaders: []int32{0}, at: time.Now()}
	if o.Prefetch == 0 {
		o.Prefetch, o.PrefetchBytes = 256, 64<<20
	}
	n, err := consumerNative(ConsumerOptions{MetadataInterval: 1000 * time.Hour}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c := newConsumer(cl, d, o, n, map[string]string{"t": "t"}, 1<<20)
	c.source = s
	own := &solo{c: c, have: map[place]bool{}}
	c.wg.Go(own.run)
	c.addLanes([]*lane{c.newLane(place{"t", 0}, "t", 0, retry, 1, 0, -1)})
	return c
}

func receiveOne(t *testing.T, c *consumer) stagebus.Delivery {
	t.Helper()
	var dst [1]stagebus.Delivery
	if _, err := c.Receive(deadline(t, 24*time.Hour), dst[:]); err != nil {
		t.Fatal(err)
	}
	return dst[0]
}

func TestRetryLaneHoldsBackUntilDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &shelf{}
		for i := range int64(3) {
			r := record{value: fmt.Append(nil, i)}
			r.headers = appendMeta(nil, envelope.Meta{Attempt: 2, Due: start.Add(time.Duration(i+1) * time.Minute)})
			r.headers = append(r.headers, header{headerOrigin, []byte("4/99")})
			s.batches = append(s.batches, batchOf(i, r))
		}
		c := testConsumer(t, s, stagebus.ConsumerOptions{}, true, nil)
		for i := range 3 {
			d := receiveOne(t, c)
			if at, want := time.Since(start), time.Duration(i+1)*time.Minute; at < want || at > want+time.Second {
				t.Errorf("message %d came after %v, want %v", i, at, want)
			}
			if d.Attempt != 2 || len(d.Headers) != 0 || string(d.Body) != fmt.Sprint(i) {
				t.Errorf("got %+v", d)
			}
			p, _ := d.Token.Lane.(*lane).ledger.Claim(d.Token.Seq)
			if p.origin != (stagebus.Position{Topic: "t", Partition: 4, Offset: 99}) {
				t.Errorf("origin %v", p.origin)
			}
			d.Token.Lane.(*lane).ledger.Unclaim(d.Token.Seq)
			if err := c.Settle(t.Context(), stagebus.Done, d.Token); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRetryWithoutAGroupWaitsInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConsumer(t, &shelf{batches: [][]byte{batchOf(0, value("a")), batchOf(1, value("b"))}}, stagebus.ConsumerOptions{}, false, nil)
		a := receiveOne(t, c)
		at := time.Now()
		if err := c.Settle(t.Context(), stagebus.Retry(time.Minute), a.Token); err != nil {
			t.Fatal(err)
		}
		if b := receiveOne(t, c); string(b.Body) != "b" || time.Since(at) > time.Second {
			t.Errorf("the others go on: got %s after %v", b.Body, time.Since(at))
		}
		again := receiveOne(t, c)
		if string(again.Body) != "a" || again.Attempt != 2 || !again.Redelivered || time.Since(at) < time.Minute {
			t.Errorf("got %+v after %v", again, time.Since(at))
		}
		if err := c.Settle(t.Context(), stagebus.Done, a.Token); !errors.Is(err, stagebus.ErrStale) {
			t.Errorf("the token of before: %v", err)
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestCorruptBatch: the partition stays, is tried again ever more rarely, and goes on once the bytes are right.
func TestCorruptBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := batchOf(1, value("b"))
		bad[len(bad)-1] ^= 1
		s := &shelf{batches: [][]byte{batchOf(0, value("a")), bad}}
		var mu sync.Mutex
		var errs []error
		c := testConsumer(t, s, stagebus.ConsumerOptions{}, false, func(e stagebus.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == stagebus.EventError {
				errs = append(errs, e.Err)
			}
		})
		if d := receiveOne(t, c); string(d.Body) != "a" {
			t.Errorf("got %s", d.Body)
		}
		var dst [1]stagebus.Delivery
		if _, err := c.Receive(deadline(t, time.Minute), dst[:]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		mu.Lock()
		var corrupt *CorruptError
		if len(errs) == 0 || len(errs) > 20 || !errors.As(errs[0], &corrupt) || corrupt.Offset != 1 {
			t.Errorf("%d events in a minute, the first %v", len(errs), errs)
		}
		mu.Unlock()
		s.mu.Lock()
		if s.asked > 25 {
			t.Errorf("asked %d times in a minute", s.asked)
		}
		s.batches[1] = batchOf(1, value("b"))
		s.mu.Unlock()
		if d := receiveOne(t, c); string(d.Body) != "b" || d.Position.Offset != 1 {
			t.Errorf("got %+v", d)
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestMemoryIsBounded: a batch is pinned until the last of its records is settled, and nothing is fetched beyond the budget.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		for i := range int64(10) {
			s.batches = append(s.batches, batchOf(i, record{value: make([]byte, 1000)}))
		}
		c := testConsumer(t, s, stagebus.ConsumerOptions{Prefetch: 4, PrefetchBytes: 2500}, false, nil)
		dst := make([]stagebus.Delivery, 10)
		n, err := c.Receive(t.Context(), dst)
		if n != 2 || err != nil {
			t.Fatalf("got %d, %v; want 2 of 1,000 bytes within 2,500", n, err)
		}
		if _, err := c.Receive(deadline(t, time.Second), dst[n:]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for i := range n {
			if err := c.Settle(t.Context(), stagebus.Done, dst[i].Token); err != nil {
				t.Error(err)
			}
		}
		for got := n; got < 10; {
			n, err := c.Receive(deadline(t, time.Minute), dst)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				_ = c.Settle(t.Context(), stagebus.Done, dst[i].Token)
			}
			got += n
		}
		synctest.Wait()
		c.mu.Lock()
		if c.held != 0 || c.heldBytes != 0 || c.pinned != 0 {
			t.Errorf("all settled, and yet %d held, %d bytes, %d pinned", c.held, c.heldBytes, c.pinned)
		}
		c.mu.Unlock()
		_ = c.Close(t.Context())
		if _, err := c.Receive(t.Context(), dst); !errors.Is(err, io.EOF) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// shelves is a fetcher of several partitions: partition n has the batches of its index.
type shelves []shelf

func (ss shelves) fetch(ctx context.Context, node int32, wait time.Duration, parts []fetchPart) (rs []fetchResult, err error) {
	some := false
	for _, p := range parts {
		one, err := ss[p.partition].fetch(ctx, node, 0, []fetchPart{p})
		if err != nil {
			return nil, err
		}
		some = some || one[0].records != nil
		rs = append(rs, one...)
	}
	if !some {
		err = sleep(ctx, wait)
	}
	return rs, err
}

// addShelves gives the consumer of [testConsumer] lanes in place of its own one, as many as there are shelves; the lanes of retry topics are given
// by their partitions.
func addShelves(c *consumer, ss shelves, retries ...int32) {
	c.sealLanes(c.current(), nil)
	c.mu.Lock()
	c.d.topics["t"] = &topicMeta{leaders: make([]int32, len(ss)), at: time.Now()}
	c.mu.Unlock()
	var ls []*lane
	for p := range int32(len(ss)) {
		ls = append(ls, c.newLane(place{"t", p}, "t", p, slices.Contains(retries, p), 1, 0, -1))
	}
	c.source = ss
	c.addLanes(ls)
}

// TestIdlePartitionsLeaveRoom: partitions without messages, whose fetches take all of the budget, don't keep the others from being fetched.
func TestIdlePartitionsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{Prefetch: 10, PrefetchBytes: 2 << 20}, false, nil)
		synctest.Wait()
		ss := make(shelves, 7)
		ss[6].batches = [][]byte{batchOf(0, value("x"))}
		addShelves(c, ss)
		var dst [1]stagebus.Delivery
		if _, err := c.Receive(deadline(t, time.Minute), dst[:]); err != nil || dst[0].Position.Partition != 6 {
			t.Errorf("got %+v, %v", dst[0].Position, err)
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestPartitionsTakeTurns: one with many messages doesn't keep back what has arrived of another.
func TestPartitionsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{}, false, nil)
		synctest.Wait()
		ss := make(shelves, 2)
		for i := range int64(50) {
			ss[0].batches = append(ss[0].batches, batchOf(i, value("x")))
			ss[1].batches = append(ss[1].batches, batchOf(i, value("x")))
		}
		addShelves(c, ss)
		synctest.Wait()
		got := map[int32]int{}
		for range 10 {
			got[receiveOne(t, c).Position.Partition]++
		}
		if got[0] != 5 || got[1] != 5 {
			t.Errorf("by partition: %v", got)
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestOneThatIsNeverSettledStopsItsPartition: what is settled behind it is remembered, so it must not go on for ever; settling it does.
func TestOneThatIsNeverSettledStopsItsPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{}, false, nil)
		synctest.Wait()
		const n = ledger.MaxSpan + 1000
		ss := make(shelves, 1)
		for at := int64(0); at < n; at += 1000 {
			ss[0].batches = append(ss[0].batches, batchOf(at, slices.Repeat([]record{value("x")}, 1000)...))
		}
		addShelves(c, ss)
		first := receiveOne(t, c)
		dst := make([]stagebus.Delivery, 256)
		got := 1
		for {
			k, err := c.Receive(deadline(t, time.Minute), dst)
			if err != nil {
				break
			}
			for _, d := range dst[:k] {
				_ = c.Settle(t.Context(), stagebus.Done, d.Token)
			}
			got += k
		}
		if got != ledger.MaxSpan+1 {
			t.Errorf("%d were delivered behind an open one, want %d", got, ledger.MaxSpan+1)
		}
		_ = c.Settle(t.Context(), stagebus.Done, first.Token)
		if _, err := c.Receive(deadline(t, time.Minute), dst); err != nil {
			t.Errorf("the oldest is settled, and nothing comes: %v", err)
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestRetriesThatWaitLeaveRoom: what a retry topic keeps back gives up its memory when others need it, and comes in its time.
func TestRetriesThatWaitLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{Prefetch: 10, PrefetchBytes: 1 << 20}, false, nil)
		synctest.Wait()
		late := record{value: []byte("late"), headers: appendMeta(nil, envelope.Meta{Attempt: 2, Due: start.Add(time.Hour)})}
		ss := make(shelves, 2)
		ss[0].batches = [][]byte{batchOf(0, late)}
		addShelves(c, ss, 0)
		var dst [1]stagebus.Delivery
		if _, err := c.Receive(deadline(t, time.Minute), dst[:]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ss[1].mu.Lock()
		ss[1].batches = [][]byte{batchOf(0, value("new"))}
		ss[1].mu.Unlock()
		if _, err := c.Receive(deadline(t, time.Minute), dst[:]); err != nil || string(dst[0].Body) != "new" {
			t.Errorf("got %s, %v", dst[0].Body, err)
		}
		_ = c.Settle(t.Context(), stagebus.Done, dst[0].Token)
		if d := receiveOne(t, c); string(d.Body) != "late" || time.Since(start) < time.Hour || time.Since(start) > time.Hour+5*time.Second {
			t.Errorf("got %s after %v", d.Body, time.Since(start))
		}
		_ = c.Close(deadline(t, time.Second))
	})
}

// TestFlushOfAConsumerThatFailed doesn't say that all is known.
func TestFlushOfAConsumerThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{}, false, nil)
		c.fail(stagebus.ErrAuth)
		close(c.closing)
		<-c.done
		if err := c.Flush(t.Context()); !errors.Is(err, stagebus.ErrAuth) {
			t.Errorf("got %v", err)
		}
		c.stop()
		c.wg.Wait()
	})
}

// TestEvictedWhileHeartbeatsGoOn: the member becomes another one while its last heartbeat is being written.
func TestEvictedWhileHeartbeatsGoOn(t *testing.T) {
	c := testConsumer(t, &shelf{}, stagebus.ConsumerOptions{}, false, nil)
	c.n.HeartbeatInterval, c.n.SessionTimeout = time.Millisecond, 50*time.Millisecond
	c.client.closed = true // every heartbeat fails at once
	m := &member{c: c, k: newCoordinator(c.client, "g"), who: identity{1, "member", ""}}
	p := &pulse{rebalance: make(chan struct{}), lost: make(chan struct{})}
	go m.beat(t.Context(), m.who, p)
	_ = m.evicted(kgo.UnknownMemberId)
	<-p.lost
	_ = c.Close(deadline(t, time.Second))
}
