package amqp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/ledger"
)

// lane is one consumer on one channel of one session: the span in which a delivery tag means one message. It is never mended: the next
// channel numbers deliveries anew, and is another lane.
type lane struct {
	c     *consumer
	place place
	queue string // where it reads: p's, or one of its own
	info  stagebus.LaneInfo
	s     *session
	ch    *amqp091.Channel
	acker acker  // ch, but for tests
	tag   string // of the consumer

	deliveries <-chan amqp091.Delivery
	cancelled  chan string         // the server ended the consumer
	closed     chan *amqp091.Error // the channel ended

	ledger   *ledger.Ledger[arrived]
	draining chan struct{}
	drain    sync.Once
	ctx      context.Context // ends with the lane
	cancel   context.CancelCauseFunc

	mu    sync.Mutex
	acks  []settlement // settled by Done and not written, in order of time
	nacks []uint64     // given back and not written; in here before the ledger's mark can pass them
	kick  chan struct{}
	hurry chan struct{}

	writing sync.Mutex          // protects the following
	singles []time.Time         // when the last acknowledgements of single tags were written
	told    uint64              // all up to it are acknowledged
	gone    map[uint64]struct{} // those after it that were told singly

	asking  sync.Mutex        // one request at a time: the library gives an answer to whoever asks
	retries map[string]string // of an ephemeral lane, under writing: its own retry queues, by step
}

// acker is where settlements are written.
type acker interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
}

// arrived is what the ledger pins.
type arrived struct {
	raw     *amqp091.Delivery
	attempt int
}

type settlement struct {
	tag uint64
	at  time.Time
}

const (
	// ackDelay is how long a settlement may wait for others, so that one frame tells of many.
	ackDelay = 100 * time.Millisecond

	// manySingles is how many acknowledgements of their own a quorum queue takes at once: its client in the broker has 32 commands under way,
	// holds back what is more, and forgets that when the channel closes.
	manySingles = 16
)

func (l *lane) Info() stagebus.LaneInfo   { return l.info }
func (l *lane) Draining() <-chan struct{} { return l.draining }
func (l *lane) Context() context.Context  { return l.ctx }

func (l *lane) startDraining() { l.drain.Do(func() { close(l.draining) }) }

// claim takes an open delivery for a settlement.
func (l *lane) claim(seq int64) (arrived, bool) { return l.ledger.Claim(seq) }

// done settles a claimed delivery; false: the lane ended meanwhile.
func (l *lane) done(seq int64, a arrived) bool {
	l.mu.Lock()
	l.acks = append(l.acks, settlement{a.raw.DeliveryTag, time.Now()})
	n := len(l.acks)
	l.mu.Unlock()
	ok := l.ledger.Settle(seq)
	signal(l.kick)
	if n >= l.c.ackBatch {
		signal(l.hurry)
	}
	return ok
}

// release gives a claimed delivery back. The tag is noted before the ledger lets the mark pass it: an ack(multiple) that came first would take
// the message away.
func (l *lane) release(seq int64, a arrived) bool {
	l.mu.Lock()
	l.nacks = append(l.nacks, a.raw.DeliveryTag)
	l.mu.Unlock()
	ok := l.ledger.Drop(seq)
	signal(l.kick)
	signal(l.hurry)
	return ok
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tell is the goroutine that writes settlements, so that those who settle never wait for the socket.
func (l *lane) tell() {
	for {
		select {
		case <-l.kick:
		case <-l.ctx.Done():
			return
		}
		t := time.NewTimer(ackDelay)
		select {
		case <-t.C:
		case <-l.hurry:
		case <-l.ctx.Done():
		}
		t.Stop()
		if l.write(false) {
			signal(l.kick)
		}
	}
}

// write tells the broker what was settled: what was given back one by one, then all up to the mark at once, then singly what is settled
// behind an open one: unacknowledged, it would use up the prefetch, and one slow message would stop its queue. Unless all is to be told, those
// wait for the mark to pass them, up to ackDelay or until they take half of the prefetch; later says that some do. An error means that
// the channel has ended; what was not written then is counted when the lane ends.
func (l *lane) write(all bool) (later bool) {
	l.writing.Lock()
	defer l.writing.Unlock()
	m, _ := l.ledger.Mark() // before the lists are taken: they hold all that let it move
	mark := uint64(max(m, 0))
	l.mu.Lock()
	acks, nacks := l.acks, l.nacks
	l.acks, l.nacks = nil, nil
	l.mu.Unlock()
	left := func() { // for untold
		l.mu.Lock()
		defer l.mu.Unlock()
		l.acks, l.nacks = append(acks, l.acks...), append(nacks, l.nacks...)
	}

	for len(nacks) > 0 {
		if l.acker.Nack(nacks[0], false, true) != nil {
			left()
			return false
		}
		l.gone[nacks[0]] = struct{}{}
		nacks = nacks[1:]
	}
	// The tag that is named must itself be unacknowledged, or the broker ends the channel.
	for last := mark; last > l.told; last-- {
		if _, gone := l.gone[last]; gone {
			continue
		}
		if l.acker.Ack(last, true) != nil {
			left()
			return false
		}
		break
	}
	for tag := l.told + 1; tag <= mark; tag++ {
		delete(l.gone, tag)
	}
	l.told = max(l.told, mark)
	acks = slices.DeleteFunc(acks, func(s settlement) bool { return s.tag <= l.told })
	if !all && l.ledger.Span() > ledger.MaxSpan { // then the prefetch may fill up: the broker delivers no more until the oldest is settled
		left()
		return false
	}
	all = all || len(acks) >= l.c.prefetch/2
	now := time.Now()
	for len(acks) > 0 && (all || now.Sub(acks[0].at) >= ackDelay) {
		if l.acker.Ack(acks[0].tag, false) != nil {
			left()
			return false
		}
		l.gone[acks[0].tag] = struct{}{}
		acks = acks[1:]
		if l.singles = append(l.singles, now); len(l.singles) > manySingles {
			l.singles = l.singles[1:]
		}
	}
	left()
	return len(acks) > 0
}

// calm waits while more acknowledgements are under way than the broker is sure to keep when the channel closes. Nothing tells when it has
// taken them; ackDelay is many times what it needs.
func (l *lane) calm(ctx context.Context) {
	l.writing.Lock()
	var wait time.Duration
	if len(l.singles) == manySingles {
		wait = ackDelay - time.Since(l.singles[0])
	}
	l.writing.Unlock()
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// untold returns how many settlements were not written.
func (l *lane) untold() int {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks) + len(l.nacks)
}

// sync returns when the broker knows what was settled: a request on the same channel is answered after the acknowledgements before
// it were read. Setting the prefetch again changes nothing.
func (l *lane) sync(ctx context.Context) error {
	return l.s.do(ctx, func() error {
		l.asking.Lock()
		defer l.asking.Unlock()
		l.write(true)
		l.calm(ctx)
		return l.ch.Qos(l.c.prefetch, 0, false)
	}, nil)
}

// end seals the lane: its tokens are stale from now on.
func (l *lane) end(cause error) {
	if l.ctx.Err() != nil {
		return
	}
	l.startDraining()
	l.ledger.Seal()
	l.cancel(stagebus.ErrStale)
	l.c.remove(l, l.untold())
	l.c.d.emit(stagebus.Event{
		Kind: stagebus.EventRevoked, Topic: l.place.topic, Group: l.info.Group, N: l.info.Epoch, Err: cause,
	})
}

// why returns what ended the deliveries.
func (l *lane) why() error {
	select {
	case e := <-l.closed:
		if e != nil {
			return e
		}
	default:
	}
	select {
	case _, ok := <-l.cancelled:
		if ok {
			return errCancelled
		}
	default:
	}
	if !l.s.alive() {
		return l.s.err
	}
	return amqp091.ErrClosed
}

var errCancelled = errors.New("the broker ended the consumer: its queue was deleted or its node went away")

// finish ends the lane in order: no more deliveries, time for the open ones, what was settled told, the rest given back.
func (l *lane) finish(ctx context.Context, patience time.Duration) error {
	// An error means that the lane ends by itself.
	_ = l.s.try(ctx, func() error {
		l.asking.Lock()
		defer l.asking.Unlock()
		return l.ch.Cancel(l.tag, false)
	}, nil)
	l.startDraining()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-l.ledger.Idle():
	case <-l.ctx.Done():
	case <-t.C:
	case <-ctx.Done():
	}
	err := l.s.try(ctx, func() error {
		l.asking.Lock()
		defer l.asking.Unlock()
		l.dropRetries()
		l.write(true)
		l.calm(ctx)
		return l.ch.Close() // answered after the acknowledgements; unsettled ones go back to the queue
	}, nil)
	untold := l.untold()
	l.end(stagebus.ErrClosed)
	if err != nil && untold > 0 {
		return l.c.d.fail("close", l.place.topic, stagebus.ErrStale, err, "settled messages whose acknowledgement was lost will be delivered again")
	}
	return nil
}
