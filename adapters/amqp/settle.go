package amqp

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/internal/deadletter"
	"github.com/stagebus/stagebus/adapters/internal/ladder"
	"github.com/stagebus/stagebus/internal/envelope"
)

func (c *consumer) Settle(ctx context.Context, v stagebus.Verdict, ts ...stagebus.Token) error {
	var errs []error // aligned with ts, nil while there is none
	stale := 0
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(ts))
		}
		if errs[i] = err; errors.Is(err, stagebus.ErrStale) {
			stale++
		}
	}
	switch v.Kind {
	case stagebus.KindDone, stagebus.KindRelease:
		for i, t := range ts {
			if l, a, ok := c.claim(t); !ok || !l.conclude(v.Kind, t.Seq, a) {
				fail(i, stagebus.ErrStale)
			}
		}
	case stagebus.KindRetry, stagebus.KindReject:
		c.move(ctx, v, ts, fail)
	default:
		return &stagebus.InvalidError{Field: "Verdict.Kind", Value: strconv.Itoa(int(v.Kind)), Reason: "unknown"}
	}
	signal(c.wake) // the budget of bytes has room again
	if stale > 0 {
		c.d.emit(stagebus.Event{Kind: stagebus.EventStale, Topic: c.o.Topics[0], Group: c.o.Group, N: int64(stale)})
	}
	if errs != nil {
		return &stagebus.BatchError{Errs: errs}
	}
	return nil
}

// claim takes the delivery of a token of this consumer.
func (c *consumer) claim(t stagebus.Token) (*lane, arrived, bool) {
	l, ok := t.Lane.(*lane)
	if !ok || l == nil || l.c != c {
		return nil, arrived{}, false
	}
	a, ok := l.claim(t.Seq)
	return l, a, ok
}

func (l *lane) conclude(k stagebus.Kind, seq int64, a arrived) bool {
	if k == stagebus.KindRelease {
		return l.release(seq, a)
	}
	return l.done(seq, a)
}

// move publishes copies, to wait or to the dead letters, and settles the originals of those that are durable. A crash in between
// leaves both: a duplicate, never a loss.
func (c *consumer) move(ctx context.Context, v stagebus.Verdict, ts []stagebus.Token, fail func(int, error)) {
	type claim struct {
		i int
		l *lane
		a arrived
	}
	var claims []claim
	var pubs []publication
	for i, t := range ts {
		l, a, ok := c.claim(t)
		if !ok {
			fail(i, stagebus.ErrStale)
			continue
		}
		queue, err := l.destination(ctx, v)
		if err != nil {
			l.ledger.Unclaim(t.Seq)
			fail(i, err)
			continue
		}
		claims = append(claims, claim{i, l, a})
		pubs = append(pubs, publication{
			topic: l.place.topic, queue: queue, size: len(a.raw.Body), lane: laneOf(queue, nil), msg: l.copyOf(a, v),
		})
	}
	if len(pubs) == 0 {
		return
	}
	errs := c.d.copies(ctx, pubs)
	for n, one := range claims {
		err := errs[n]
		if isNoRoute(err) { // the queue was deleted since it was declared: once more, from the start
			c.d.forgetQueue(pubs[n].queue)
			one.l.forgetRetry(pubs[n].queue)
			if pubs[n].queue, err = one.l.destination(ctx, v); err == nil {
				err = c.d.copies(ctx, pubs[n:n+1])[0]
			}
		}
		if err != nil {
			one.l.ledger.Unclaim(ts[one.i].Seq)
			fail(one.i, err)
			continue
		}
		if !one.l.done(ts[one.i].Seq, one.a) {
			fail(one.i, stagebus.ErrStale)
		}
	}
}

// copyOf is the message as it was received, with what the verdict adds.
func (l *lane) copyOf(a arrived, v stagebus.Verdict) amqp091.Publishing {
	raw := a.raw
	headers := maps.Clone(raw.Headers)
	if headers == nil {
		headers = amqp091.Table{}
	}
	// The broker takes a message that expires twice in one queue, by these marks, for one that goes in circles, and drops it.
	maps.DeleteFunc(headers, func(name string, _ any) bool { return counted(name) || deathMark(name) })
	if v.Kind == stagebus.KindRetry {
		headers[envelope.HeaderAttempt] = strconv.Itoa(a.attempt + 1)
	} else {
		delete(headers, envelope.HeaderAttempt) // the dead letters are another topic, whose attempts count from one
		letter := deadletter.Letter{
			Reason: v.Reason, Origin: stagebus.Position{Topic: l.place.topic, Offset: -1}, Group: l.place.group, Attempt: a.attempt, Rejected: time.Now(),
		}
		for _, h := range letter.Headers() {
			headers[h.Key] = str(h.Value)
		}
	}
	return amqp091.Publishing{
		Headers: headers, Body: raw.Body, DeliveryMode: amqp091.Persistent,
		MessageId: raw.MessageId, Type: raw.Type, ContentType: raw.ContentType, ContentEncoding: raw.ContentEncoding,
		CorrelationId: raw.CorrelationId, ReplyTo: raw.ReplyTo, Timestamp: raw.Timestamp, Priority: raw.Priority, AppId: raw.AppId,
		// Not Expiration: it would end the delay early, or take a dead letter away. Not UserId: the broker checks it against our login.
	}
}

// destination returns the queue for a verdict's copy, and makes it if need be.
func (l *lane) destination(ctx context.Context, v stagebus.Verdict) (string, error) {
	d := l.c.d
	op := "reject"
	if v.Kind == stagebus.KindRetry {
		op = "retry"
	}
	queue := stagebus.DeadLetterTopic(l.place.topic, l.place.group)
	var variants []amqp091.Table
	s, err := d.consume.wait(ctx)
	if err != nil {
		return "", d.fail(op, l.place.topic, nil, err, "")
	}
	switch {
	case v.Kind == stagebus.KindReject:
		variants = s.server.arguments(place{queueType: l.place.queueType})
	case l.place.group == "":
		queue, err = l.privateRetry(ctx, ladder.Step(v.After))
		if err != nil {
			return "", d.fail(op, l.place.topic, nil, err, "")
		}
		return queue, nil
	default:
		step := ladder.Step(v.After)
		queue = stagebus.RetryTopic(l.place.topic, l.place.group) + ladder.Millis(step)
		variants = s.server.retryArguments(step, l.queue)
	}
	if err := checkQueueName(queue); err != nil {
		return "", err
	}
	if d.knowsQueue(queue) {
		return queue, nil
	}
	select { // one at a time: see driver.ensure
	case d.declaring <- struct{}{}:
		defer func() { <-d.declaring }()
	case <-ctx.Done():
		return "", d.fail(op, queue, nil, context.Cause(ctx), "")
	}
	if d.knowsQueue(queue) {
		return queue, nil
	}
	_, err = s.inspect(ctx, queue)
	if code(err) == amqp091.NotFound {
		err = s.declareAny(ctx, queue, variants)
	}
	if err != nil {
		return "", d.fail(op, queue, nil, err, "")
	}
	d.noteQueue(queue)
	return queue, nil
}
