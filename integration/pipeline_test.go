package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters"
	"github.com/stagebus/stagebus/integration/broker"
	"github.com/stagebus/stagebus/pipeline"
)

// TestPipeline stops a stage in the middle of its work and starts it again, several times, two of them with no time to drain, and
// counts exactly: every input has its output; the first outputs of a key never go backwards; what was handled or sent twice
// has a reason.
func TestPipeline(t *testing.T) {
	for name, at := range map[string]struct {
		kind  broker.Kind
		query string
	}{
		"kafka":   {broker.Kafka, ""},
		"classic": {broker.AMQP, "?queue_type=classic"},
		"quorum":  {broker.AMQP, "?queue_type=quorum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			l := newLine(ctx, t, broker.Require(t, at.kind).URL()+at.query)
			l.requeuesLast = name == "quorum"
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				l.read(ctx, t, l.outReader, l.noteOutput)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			l.run(ctx, t, l.total/5, 0)
			l.run(ctx, t, l.total*2/5, time.Microsecond)
			l.run(ctx, t, l.total*3/5, 0)
			l.run(ctx, t, l.total*4/5, time.Microsecond)
			l.run(ctx, t, -1, 0)

			l.finish(ctx, t)
			<-ended
			l.check(t)
		})
	}
}

const lineGroup = "stage"

// line is a stage between two topics, with its books.
type line struct {
	bus        *stagebus.Broker
	in, out    string
	partitions int
	total      int
	producer   stagebus.Producer
	outReader  stagebus.Consumer
	// requeuesLast says that the broker puts what is given back behind everything else, as a quorum queue without a delivery limit does.
	requeuesLast bool

	mu      sync.Mutex // protects the following
	handled []handling // in order
	begun   map[string]bool
	cut     []int      // lengths of handled when the stage was stopped without time
	outputs []handling // as they were read, in order
	seen    map[string]int
	places  map[stagebus.Position]bool // of outputs, where they are known
	all     chan struct{}              // closed when every input has an output

	uncertain int // sends
}

// handling is one delivery, of an input or of an output.
type handling struct {
	id          string
	at          stagebus.Position
	redelivered bool
}

func newLine(ctx context.Context, t *testing.T, url string) *line {
	bus, err := adapters.Open(ctx, url, adapters.Options{})
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("line-%d", time.Now().UnixNano())
	l := &line{bus: bus, in: name + ".in", out: name + ".out", partitions: 1, begun: map[string]bool{}, seen: map[string]int{}, places: map[stagebus.Position]bool{}, all: make(chan struct{})}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(bus.Admin().Delete(ctx, l.in), bus.Admin().Delete(ctx, l.out), bus.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	spec := stagebus.TopicSpec{Name: l.in, Groups: []string{lineGroup}}
	if bus.Capabilities().Partitions {
		l.partitions = 4
		spec.Partitions = l.partitions
	}
	err = bus.Admin().Declare(ctx, spec)
	spec.Name = l.out
	if err = errors.Join(err, bus.Admin().Declare(ctx, spec)); err != nil {
		t.Fatal(err)
	}
	if l.producer, err = bus.Producer(ctx, stagebus.ProducerOptions{}); err != nil {
		t.Fatal(err)
	}
	l.outReader = l.consumer(ctx, t, l.out)
	const keys, rounds = 30, 60
	for round := range rounds {
		ms := make([]stagebus.Message, keys)
		for k := range ms {
			key := fmt.Sprint("k", k)
			ms[k] = stagebus.Message{Topic: l.in, Key: []byte(key), ID: fmt.Sprintf("%s/%d", key, round), Body: []byte("payload of " + key)}
		}
		if err := stagebus.Send(ctx, l.producer, ms...); err != nil {
			t.Fatal(err)
		}
		l.total += keys
	}
	return l
}

func (l *line) consumer(ctx context.Context, t *testing.T, topic string) stagebus.Consumer {
	t.Helper()
	c, err := l.bus.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{topic}, Group: lineGroup})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run starts the stage and stops it from a handler, when so many different messages have been begun; or, if that is negative, when every input
// has an output. A drain time is one that cuts it off.
func (l *line) run(ctx context.Context, t *testing.T, until int, drain time.Duration) {
	t.Helper()
	c := l.consumer(ctx, t, l.in)
	running, stop := context.WithCancel(ctx)
	defer stop()
	if until < 0 {
		go func() {
			select {
			case <-l.all:
				stop()
			case <-running.Done():
			}
		}()
	}
	err := pipeline.Run(running, pipeline.Stage{
		Name: "line", Consumer: c, Producer: l.producer, Workers: 4, Drain: drain,
		Handle: func(hctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			if n, _ := l.begin(d); until >= 0 && n >= until {
				stop()
				if drain > 0 {
					<-hctx.Done()
				}
			}
			return []stagebus.Message{{Topic: l.out, Key: d.Key, Body: d.Body, ID: d.ID}}, stagebus.Done
		},
	})
	if ctx.Err() != nil {
		t.Fatalf("out of time: %d of %d messages were begun", len(l.begun), l.total)
	}
	switch {
	case drain == 0 && err != nil:
		t.Fatal(err)
	case drain > 0 && !errors.Is(err, pipeline.ErrDrain):
		t.Fatalf("stopped without time to drain: %v", err)
	case drain > 0:
		l.noteCut()
	}
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

// begin notes that a handler begins, and returns how many different messages have been begun, and whether this one is among them for the
// first time.
func (l *line) begin(d *stagebus.Delivery) (n int, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = !l.begun[d.ID]
	l.begun[d.ID] = true
	l.handled = append(l.handled, handling{d.ID, d.Position, d.Redelivered})
	return len(l.begun), first
}

// noteCut notes that messages that have been begun may come again from now on.
func (l *line) noteCut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = append(l.cut, len(l.handled))
}

// noteEvent counts sends that may have doubled their messages.
func (l *line) noteEvent(e stagebus.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(e.Err, stagebus.ErrUncertain) {
		l.uncertain++
	}
}

const lineMark = "mark"

// finish reads what came again and was not begun when the last output was there, and has the reader of the outputs end.
func (l *line) finish(ctx context.Context, t *testing.T) {
	t.Helper()
	l.mark(ctx, t, l.in)
	l.read(ctx, t, l.consumer(ctx, t, l.in), func(d *stagebus.Delivery) { l.begin(d) })
	l.mark(ctx, t, l.out)
}

// mark sends what ends read, to each partition of a topic.
func (l *line) mark(ctx context.Context, t *testing.T, topic string) {
	t.Helper()
	marks := make([]stagebus.Message, l.partitions)
	for i := range marks {
		marks[i] = stagebus.Message{Topic: topic, ID: lineMark}
		if l.partitions > 1 {
			marks[i].Partition = stagebus.At(int32(i))
		}
	}
	if err := stagebus.Send(ctx, l.producer, marks...); err != nil {
		t.Fatal(err)
	}
}

// read settles all that comes, until it has seen the marks.
func (l *line) read(ctx context.Context, t *testing.T, c stagebus.Consumer, note func(*stagebus.Delivery)) {
	dst := make([]stagebus.Delivery, 256)
	for marks := 0; marks < l.partitions; {
		n, err := c.Receive(ctx, dst)
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		for i := range dst[:n] {
			if dst[i].ID == lineMark {
				marks++
			} else {
				note(&dst[i])
			}
			if err := c.Settle(ctx, stagebus.Done, dst[i].Token); err != nil {
				t.Errorf("read: %v", err)
			}
		}
	}
}

func (l *line) noteOutput(d *stagebus.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places[d.Position] || l.seen[d.ID] > 0 && d.Redelivered {
		return // the same copy, read again
	}
	if d.Position.Offset >= 0 {
		l.places[d.Position] = true
	}
	l.outputs = append(l.outputs, handling{d.ID, d.Position, d.Redelivered})
	if l.seen[d.ID]++; l.seen[d.ID] == 1 && len(l.seen) == l.total {
		close(l.all)
	}
}

func (l *line) check(t *testing.T) {
	times, redelivered := l.explain(t)
	first, last, late := map[string]bool{}, map[string]int{}, 0
	for _, out := range l.outputs {
		id := out.id
		key, n := splitID(id)
		if first[id] {
			continue
		}
		first[id] = true
		switch before, ok := last[key]; {
		case !ok || n > before:
			last[key] = n
		case l.requeuesLast && (redelivered[id] || out.redelivered):
			late++
		default:
			t.Errorf("%s is behind %s/%d", id, key, before)
		}
	}
	if len(l.seen) != l.total {
		t.Errorf("%d of %d outputs", len(l.seen), l.total)
	}
	for id, n := range l.seen {
		if n > times[id]+l.uncertain {
			t.Errorf("%s was sent %d times and handled %d times; %d sends were uncertain", id, n, times[id], l.uncertain)
		}
	}
	t.Logf("%d inputs, handled %d times (%d more), %d outputs (%d more), %d of them late",
		l.total, len(l.handled), len(l.handled)-l.total, len(l.outputs), len(l.outputs)-l.total, late)
}

// explain fails the test if an input was handled twice without a reason: between the two, the stage was cut off; or, where offsets are
// committed, something before it in its partition was not handled when it was stopped. It returns how often each was handled, and which were marked as
// redelivered.
func (l *line) explain(t *testing.T) (times map[string]int, redelivered map[string]bool) {
	times, redelivered = map[string]int{}, map[string]bool{}
	first := map[string]int{}
	for i, h := range l.handled {
		redelivered[h.id] = redelivered[h.id] || h.redelivered
		if times[h.id]++; times[h.id] == 1 {
			first[h.id] = i
			continue
		}
		before := first[h.id]
		cut := slices.ContainsFunc(l.cut, func(n int) bool { return before < n && n <= i })
		behind := h.at.Offset >= 0 && slices.ContainsFunc(l.handled[before:], func(x handling) bool {
			return x.at.Partition == h.at.Partition && x.at.Offset < h.at.Offset
		})
		if !cut && !behind {
			t.Errorf("%s at %v was handled again without a reason", h.id, h.at)
		}
	}
	return times, redelivered
}
