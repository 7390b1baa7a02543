package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 2 * time.Minute // a passing test never waits that long

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newBroker(t testing.TB, o memory.Options, layers ...stagebus.Middleware) *stagebus.Broker {
	t.Helper()
	var err error
	o.Stack, err = stagebus.NewStack(layers...)
	check(t, err)
	b := memory.New(o)
	t.Cleanup(func() { check(t, b.Close(context.Background())) })
	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "in", Groups: []string{stagebus.DefaultGroup}}))
	check(t, b.Admin().Declare(within(t), stagebus.TopicSpec{Name: "out", Groups: []string{stagebus.DefaultGroup}}))
	return b
}

func producer(t testing.TB, b *stagebus.Broker) stagebus.Producer {
	t.Helper()
	p, err := b.Producer(within(t), stagebus.ProducerOptions{})
	check(t, err)
	return p
}

func consumer(t testing.TB, b *stagebus.Broker, o stagebus.ConsumerOptions) stagebus.Consumer {
	t.Helper()
	if o.Topics == nil {
		o.Topics = []string{"in"}
	}
	c, err := b.Consumer(within(t), o)
	check(t, err)
	return c
}

// send puts n messages of each of some keys into a topic, round by round; the ID of each is KEY/NUMBER.
func send(t testing.TB, b *stagebus.Broker, topic string, n int, keys ...string) {
	t.Helper()
	sendFrom(t, b, topic, 0, n, keys...)
}

// sendFrom sends those numbered from first up to last, without it.
func sendFrom(t testing.TB, b *stagebus.Broker, topic string, first, last int, keys ...string) {
	t.Helper()
	p := producer(t, b)
	for i := first; i < last; i++ {
		ms := make([]stagebus.Message, len(keys))
		for j, key := range keys {
			ms[j] = stagebus.Message{Topic: topic, ID: fmt.Sprintf("%s/%d", key, i), Body: []byte("body")}
			if !strings.HasPrefix(key, "-") { // those have none
				ms[j].Key = []byte(key)
			}
		}
		check(t, stagebus.Send(within(t), p, ms...))
	}
	check(t, p.Close(within(t)))
}

func keys(n int) []string {
	var ks []string
	for i := range n {
		ks = append(ks, fmt.Sprint("key", i))
	}
	return ks
}

func depth(t testing.TB, b *stagebus.Broker, topic string) int64 {
	t.Helper()
	info, err := b.Admin().Describe(within(t), topic)
	if errors.Is(err, stagebus.ErrNotFound) {
		return 0
	}
	check(t, err)
	for _, g := range info.Groups {
		if g.Name == stagebus.DefaultGroup {
			return g.Depth
		}
	}
	return info.Groups[0].Depth
}

// stage is a Run under test.
type stage struct {
	t     testing.TB
	stop  context.CancelFunc
	ended chan struct{}
	err   error
}

func start(t testing.TB, s pipeline.Stage) *stage {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	st := &stage{t: t, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(st.ended)
		st.err = pipeline.Run(ctx, s)
	}()
	t.Cleanup(func() {
		stop()
		<-st.ended
	})
	return st
}

// end waits for the stage's own end.
func (s *stage) end() error {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("Run doesn't return")
	}
	return s.err
}

// book counts what comes out of a topic.
type book struct {
	mu    sync.Mutex
	seen  map[string]int // by ID
	last  map[string]int // first copies, by key
	final map[string]int // all copies, by key
	back  []string       // first copies behind a later one of their key
	more  chan struct{}
}

func newBook() *book {
	return &book{seen: map[string]int{}, last: map[string]int{}, final: map[string]int{}, more: make(chan struct{}, 1)}
}

func (b *book) add(id string) {
	key, n, _ := strings.Cut(id, "/")
	i, err := strconv.Atoi(n)
	if err != nil {
		panic("not an ID of this test: " + id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[id]++
	if strings.HasPrefix(key, "-") { // no key, no order
	} else if last, ok := b.last[key]; b.seen[id] == 1 {
		if ok && i < last {
			b.back = append(b.back, id)
		}
		b.last[key] = i
	}
	b.final[key] = i
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *book) distinct() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

func (b *book) duplicates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, times := range b.seen {
		n += times - 1
	}
	return n
}

// await waits for n distinct messages.
func (b *book) await(t testing.TB, n int) {
	t.Helper()
	for timeout := time.After(patience); b.distinct() < n; {
		select {
		case <-b.more:
		case <-timeout:
			t.Fatalf("%d of %d messages", b.distinct(), n)
		}
	}
}

// inOrder fails the test if a key went backwards.
func (b *book) inOrder(t testing.TB) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.back) > 0 {
		t.Errorf("%d messages came behind later ones of their keys, first %s", len(b.back), b.back[0])
	}
}

// spy is a consumer that counts, and fails on demand.
type spy struct {
	stagebus.Consumer
	received, settles atomic.Int32
	hold              chan struct{} // if not nil, Settle waits for it
	afterReceive      func()
	fail              error // of Receive
	failSettle        func(stagebus.Verdict) error
	flushes           atomic.Int32
	failFlush         error
}

func (s *spy) Flush(ctx context.Context) error {
	s.flushes.Add(1)
	if _, ok := ctx.Deadline(); !ok {
		panic("Flush without a deadline")
	}
	return errors.Join(s.failFlush, s.Consumer.Flush(ctx))
}

func (s *spy) Receive(ctx context.Context, dst []stagebus.Delivery) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	n, err := s.Consumer.Receive(ctx, dst)
	s.received.Add(int32(n))
	if s.afterReceive != nil {
		s.afterReceive()
	}
	return n, err
}

func (s *spy) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	s.settles.Add(1)
	if s.hold != nil {
		<-s.hold
	}
	if s.failSettle != nil {
		if err := s.failSettle(v); err != nil {
			return err
		}
	}
	return s.Consumer.Settle(ctx, v, ts...)
}

// hook remembers events.
type hook struct {
	mu  sync.Mutex
	all []stagebus.Event
}

func (h *hook) add(e stagebus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
}

func (h *hook) of(kind stagebus.EventKind) []stagebus.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var es []stagebus.Event
	for _, e := range h.all {
		if e.Kind == kind {
			es = append(es, e)
		}
	}
	return es
}

// read enters what comes out of a topic, in the background.
func (b *book) read(t testing.TB, br *stagebus.Broker, topic string) *book {
	t.Helper()
	c := consumer(t, br, stagebus.ConsumerOptions{Topics: []string{topic}, Group: "reader"})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for item, err := range stagebus.All(ctx, c) {
			if err != nil {
				return
			}
			b.add(item.ID)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return b
}

// forward sends a delivery on, to topic out.
func forward(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	return []stagebus.Message{{Topic: "out", Key: d.Key, Body: d.Body, ID: d.ID}}, stagebus.Done
}
