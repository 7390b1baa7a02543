package amqp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// strictBroker settles tags as RabbitMQ does: one that isn't unacknowledged ends the channel.
type strictBroker struct {
	unacked map[uint64]bool
	acked   map[uint64]bool
	back    map[uint64]bool
	frames  int
	failAt  int // frame that fails; 0: none
}

func (b *strictBroker) frame(tag uint64) error {
	if b.frames++; b.frames == b.failAt {
		return amqp091.ErrClosed
	}
	if !b.unacked[tag] {
		panic(fmt.Sprintf("406 unknown delivery tag %d", tag))
	}
	return nil
}

func (b *strictBroker) Ack(tag uint64, multiple bool) error {
	if err := b.frame(tag); err != nil {
		return err
	}
	for t := range b.unacked {
		if t == tag || multiple && t < tag {
			delete(b.unacked, t)
			b.acked[t] = true
		}
	}
	return nil
}

func (b *strictBroker) Nack(tag uint64, multiple, requeue bool) error {
	if multiple || !requeue {
		panic("give back one at a time, and requeue it")
	}
	if err := b.frame(tag); err != nil {
		return err
	}
	delete(b.unacked, tag)
	b.back[tag] = true
	return nil
}

func testLane(b *strictBroker) *lane {
	l := &lane{
		c: &consumer{ackBatch: 8, lanes: map[*lane]struct{}{}}, acker: b, ledger: ledger.New[arrived](), draining: make(chan struct{}),
		kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1), gone: map[uint64]struct{}{},
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

func (l *lane) deliver(t *testing.T, b *strictBroker, tag uint64) int64 {
	t.Helper()
	b.unacked[tag] = true
	seq, ok := l.ledger.Add(int64(tag), 1, arrived{raw: &amqp091.Delivery{DeliveryTag: tag}})
	if !ok {
		t.Fatal("sealed")
	}
	return seq
}

func newStrict() *strictBroker {
	return &strictBroker{unacked: map[uint64]bool{}, acked: map[uint64]bool{}, back: map[uint64]bool{}}
}

// Whatever the order of settlements and of writes, the broker hears of exactly those, and never of a tag that it doesn't know.
func TestLaneWrites(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := newStrict()
		l := testLane(b)
		var open []stagebus.Token
		tags := map[int64]uint64{}
		done, released := map[uint64]bool{}, map[uint64]bool{}
		next := uint64(1)
		for range 400 {
			switch r.IntN(5) {
			case 0, 1:
				seq := l.deliver(t, b, next)
				tags[seq] = next
				open = append(open, stagebus.Token{Lane: l, Seq: seq})
				next++
			case 2, 3:
				if len(open) == 0 {
					continue
				}
				i := r.IntN(min(len(open), 8))
				token := open[i]
				open = append(open[:i:i], open[i+1:]...)
				a, ok := l.claim(token.Seq)
				if !ok {
					t.Fatal("not open")
				}
				kind := stagebus.KindDone
				to := done
				if r.IntN(4) == 0 {
					kind, to = stagebus.KindRelease, released
				}
				if to[tags[token.Seq]] = true; !l.conclude(kind, token.Seq, a) {
					t.Fatal("stale")
				}
			case 4:
				l.write(true)
				if len(b.acked) != len(done) || len(b.back) != len(released) {
					t.Fatalf("seed %d: told of %d done and %d released, want %d and %d", seed, len(b.acked), len(b.back), len(done), len(released))
				}
			}
		}
		l.write(true)
		for tag := range next {
			if b.acked[tag] != done[tag] || b.back[tag] != released[tag] {
				t.Fatalf("seed %d: %d is acked %v, back %v; want %v, %v", seed, tag, b.acked[tag], b.back[tag], done[tag], released[tag])
			}
		}
		if n := len(l.gone); n > int(next) || l.untold() != 0 {
			t.Errorf("%d remembered, %d untold", n, l.untold())
		}
	}
}

// Settlements in order cost one frame for all.
func TestLaneWritesOnce(t *testing.T) {
	b := newStrict()
	l := testLane(b)
	for tag := range uint64(100) {
		seq := l.deliver(t, b, tag+1)
		a, _ := l.claim(seq)
		l.done(seq, a)
	}
	l.write(true)
	l.write(true)
	if b.frames != 1 || len(b.acked) != 100 {
		t.Errorf("%d frames, %d acked", b.frames, len(b.acked))
	}
}

// What is settled behind an open delivery waits for it a while, unless it takes up the prefetch: most of the time the mark passes it, and one
// frame tells of all. (A quorum queue may forget many single ones when the channel closes.)
func TestLaneWaitsForTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newStrict()
		l := testLane(b)
		l.c.prefetch = 10
		settle := func(seq int64) {
			a, _ := l.claim(seq)
			l.done(seq, a)
		}
		first := l.deliver(t, b, 1)
		var seqs []int64
		for tag := range uint64(8) {
			seqs = append(seqs, l.deliver(t, b, tag+2))
		}
		for _, seq := range seqs[:4] {
			settle(seq)
		}
		if later := l.write(false); !later || b.frames != 0 {
			t.Fatalf("%d frames at once, later %v", b.frames, later)
		}
		settle(seqs[4])
		if l.write(false); len(b.acked) != 5 {
			t.Fatalf("half of the prefetch is settled and %d are told", len(b.acked))
		}
		settle(seqs[5])
		l.write(false)
		<-time.After(ackDelay)
		if l.write(false); len(b.acked) != 6 {
			t.Fatalf("%d are told after the delay", len(b.acked))
		}
		settle(seqs[6])
		settle(first)
		frames := b.frames
		if later := l.write(false); later || b.frames != frames+1 || len(b.acked) != 8 {
			t.Errorf("the mark moved: %d frames, %d acked, later %v", b.frames-frames, len(b.acked), later)
		}
	})
}

// A delivery that is never settled must not let what is remembered behind it grow for ever: the prefetch is left to fill up.
func TestLaneStopsBehindAnOpenDelivery(t *testing.T) {
	b := newStrict()
	l := testLane(b)
	l.c.prefetch = 4
	first := l.deliver(t, b, 1)
	for tag := uint64(2); tag < ledger.MaxSpan+10; tag++ {
		seq := l.deliver(t, b, tag)
		a, _ := l.claim(seq)
		l.done(seq, a)
		if tag <= 10 || tag > ledger.MaxSpan {
			l.write(false)
		}
	}
	if b.acked[ledger.MaxSpan+5] || !b.acked[9] {
		t.Errorf("%d were told", len(b.acked))
	}
	a, _ := l.claim(first)
	l.done(first, a)
	l.write(true)
	if len(b.unacked) != 0 {
		t.Errorf("%d are not told though the oldest is settled", len(b.unacked))
	}
}

// What the socket didn't take is counted, so that Flush and Close can say so.
func TestLaneCountsUntold(t *testing.T) {
	for failAt := 1; failAt <= 3; failAt++ {
		b := newStrict()
		b.failAt = failAt
		l := testLane(b)
		var seqs []int64
		for tag := range uint64(5) {
			seqs = append(seqs, l.deliver(t, b, tag+1))
		}
		for _, i := range []int{0, 1, 3} { // 3 is open, 4 behind it
			a, _ := l.claim(seqs[i])
			l.done(seqs[i], a)
		}
		a, _ := l.claim(seqs[4])
		l.release(seqs[4], a)
		l.write(true)
		want := []int{4, 3, 1}[failAt-1] // the nack goes first, then two at once, then one
		if got := l.untold(); got != want {
			t.Errorf("frame %d fails: %d untold, want %d", failAt, got, want)
		}
	}
}

func TestLaneEnds(t *testing.T) {
	b := newStrict()
	l := testLane(b)
	l.c.d, l.c.o.Topics = &driver{config: testConfig(t, Options{})}, []string{"t"}
	l.c.lanes[l] = struct{}{}
	seq := l.deliver(t, b, 1)
	second := l.deliver(t, b, 2)
	a, _ := l.claim(second)
	l.done(second, a)
	l.end(amqp091.ErrClosed)
	select {
	case <-l.Draining():
	default:
		t.Error("not draining")
	}
	if !errors.Is(context.Cause(l.Context()), stagebus.ErrStale) {
		t.Error(context.Cause(l.Context()))
	}
	if err := l.c.Settle(context.Background(), stagebus.Done, stagebus.Token{Lane: l, Seq: seq}); !isStale(err) {
		t.Error(err)
	}
	if len(l.c.lanes) != 0 || l.c.lost != 1 {
		t.Errorf("%d lanes, %d lost", len(l.c.lanes), l.c.lost)
	}
}

func isStale(err error) bool {
	be, ok := errors.AsType[*stagebus.BatchError](err)
	return ok && len(be.Errs) == 1 && errors.Is(be.Errs[0], stagebus.ErrStale)
}
