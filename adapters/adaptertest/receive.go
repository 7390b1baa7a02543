package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

var receiveCases = []Case{
	{Name: "receive/batch", Proves: "Receive fills at most dst, returns what is there, and keeps the order", run: batchCase},
	{Name: "receive/eof", Proves: "a closed consumer's Receive returns io.EOF, also one that waits; closing again is nothing", run: eofCase},
	{Name: "receive/cancel", Proves: "a Receive whose context ends loses nothing", run: cancelCase},
	{Name: "receive/prefetch", Proves: "no more than Prefetch messages are delivered and not settled", run: prefetchCase},
	{Name: "receive/prefetch-bytes", Proves: "no more than PrefetchBytes are delivered and not settled, but at least one message", run: prefetchBytesCase},
	{Name: "receive/missing-topic", Proves: "a consumer of a topic that doesn't exist is ErrNotFound, and creates nothing", run: missingTopicCase},
	{Name: "receive/positioned", Proves: "what is sent after Consumer has returned is seen", run: positionedCase},
	{Name: "receive/ephemeral", Proves: "an Ephemeral consumer gets its own copy of what is sent from now on, and leaves nothing behind", run: ephemeralCase},
	{Name: "receive/lane", Proves: "a delivery's lane says what it is, and ends with its consumer", run: laneCase},
}

func batchCase(e *env) {
	const n = 50
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	_, err := c.Receive(e.ctx(), nil)
	e.want(err, "receive into an empty dst", stagebus.ErrInvalid)
	for i := range n {
		e.send(p, stagebus.Message{Topic: topic, Key: []byte("one"), Body: []byte(fmt.Sprint("m", i))})
	}
	ctx := e.ctx()
	for i, size := 0, 1; i < n; size = size%7 + 1 {
		dst := make([]stagebus.Delivery, size, 100) // beyond its length dst isn't the adapter's
		k, err := c.Receive(ctx, dst)
		if err != nil || k < 1 || k > size {
			e.Fatalf("Receive into %d: %d, %v", size, k, err)
		}
		for _, d := range dst[:k] {
			if want := fmt.Sprint("m", i); string(d.Body) != want {
				e.Fatalf("got %s, want %q", describe(&d), want)
			}
			i++
		}
		for _, d := range dst[k:size:100][:100-k] {
			if d.Token != (stagebus.Token{}) || d.Body != nil {
				e.Fatalf("Receive returned %d and wrote beyond: %s", k, describe(&d))
			}
		}
		e.settle(c, stagebus.Done, dst[:k]...)
	}
	e.nothingBefore(p, c, topic, "all have been received")
}

func eofCase(e *env) {
	topic := e.topic()
	c := e.consumer(topic, "")
	waiting, got := make(chan struct{}), make(chan error, 1)
	ctx := e.ctx()
	go func() {
		close(waiting)
		_, err := c.Receive(ctx, make([]stagebus.Delivery, 1))
		got <- err
	}()
	<-waiting
	e.closeIt("consumer", c.Close)
	if err := <-got; !errors.Is(err, io.EOF) {
		e.Errorf("a Receive that waited when the consumer was closed returned %v", err)
	}
	for range 2 {
		_, err := c.Receive(e.ctx(), make([]stagebus.Delivery, 1))
		e.want(err, "receive after Close", io.EOF)
		e.closeIt("consumer, again", c.Close)
	}
	// What is there when the consumer is closed stays there.
	p := e.producer()
	e.sendTexts(p, topic, "kept")
	if got := e.take(e.consumer(topic, ""), 1); got[0] != "kept" {
		e.Errorf("got %q", got)
	}
}

func cancelCase(e *env) {
	const n = 300
	topic := e.topic()
	p, c := e.producer(), e.consumer(topic, "")
	sent := make(chan error, 1)
	ctx := e.ctx()
	go func() {
		for i := range n {
			if err := stagebus.Send(ctx, p, texts(topic, fmt.Sprint("m", i))...); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	dst := make([]stagebus.Delivery, 8)
	var got []stagebus.Delivery
	for i := 0; len(got) < n; i++ {
		// The deadlines fall before, into and after the arrival of a message.
		short, cancel := context.WithTimeout(ctx, time.Duration(i%40)*50*time.Microsecond)
		k, err := c.Receive(short, dst)
		cancel()
		got = append(got, dst[:k]...)
		if err == nil {
			e.settle(c, stagebus.Done, dst[:k]...)
			continue
		}
		if k > 0 {
			e.Fatalf("Receive returned %d deliveries and %v", k, err)
		}
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			e.Fatalf("received %d of %d with contexts that end at once, then: %v", len(got), n, err)
		}
	}
	if err := <-sent; err != nil {
		e.Fatalf("send: %v", err)
	}
	for i := range got {
		if string(got[i].Body) != fmt.Sprint("m", i) || got[i].Redelivered {
			e.Fatalf("delivery %d is %s", i, describe(&got[i]))
		}
	}
	e.nothingBefore(p, c, topic, "all have been received, with contexts that ended")
}

func prefetchCase(e *env) {
	const n, sent = 5, 30
	topic := e.topic()
	p := e.producer()
	e.sendTexts(p, topic, numbered("m", sent)...)
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, Prefetch: n})
	ctx := e.ctx()
	var open []stagebus.Delivery
	for len(open) < n {
		dst := make([]stagebus.Delivery, sent)
		k, err := c.Receive(ctx, dst)
		if err != nil {
			e.Fatalf("received %d of a prefetch of %d: %v", len(open), n, err)
		}
		if open = append(open, dst[:k]...); len(open) > n {
			e.Fatalf("%d messages are delivered and not settled, the prefetch is %d", len(open), n)
		}
	}
	e.quiet(c, fmt.Sprintf("%d messages are open, as many as the prefetch", n))
	e.settle(c, stagebus.Done, open[2])
	open = append(open, e.receive(c, 1)...)
	e.quiet(c, "one was settled and one came: again as many are open as the prefetch")
	if open[n].Token == open[2].Token {
		e.Errorf("the settled message came again")
	}
	e.settle(c, stagebus.Done, append(open[:2:2], open[3:]...)...)
	for range sent - n - 1 {
		e.take(c, 1)
	}
	e.nothingBefore(p, c, topic, "all have been received")
}

func prefetchBytesCase(e *env) {
	const size, most = 4 << 10, 2
	topic := e.topic()
	p := e.producer()
	body := strings.Repeat("b", size)
	e.sendTexts(p, topic, body, body, body, body, body, strings.Repeat("l", 10*size), body)
	c := e.consumerOf(e.b, stagebus.ConsumerOptions{Topics: []string{topic}, PrefetchBytes: most*size + size/2})
	var open []stagebus.Delivery
	for n := 0; n < 7; {
		d := e.receive(c, 1)[0]
		n++
		open = append(open, d)
		bytes := 0
		for i := range open {
			bytes += open[i].Size()
		}
		if len(open) > 1 && bytes > most*size+size/2 {
			e.Fatalf("%d messages of %d bytes are delivered and not settled, PrefetchBytes is %d", len(open), bytes, most*size+size/2)
		}
		// Settle when it is full. What is pinned may be more than what is seen: one must always come, a second need not.
		short, cancel := context.WithTimeout(context.Background(), moment)
		dst := make([]stagebus.Delivery, 1)
		k, err := c.Receive(short, dst)
		cancel()
		if err == nil {
			n += k
			open = append(open, dst[:k]...)
		}
		bytes = 0
		for i := range open {
			bytes += open[i].Size()
		}
		if len(open) > 1 && bytes > most*size+size/2 {
			e.Fatalf("%d messages of %d bytes are delivered and not settled, PrefetchBytes is %d", len(open), bytes, most*size+size/2)
		}
		e.settle(c, stagebus.Done, open...)
		open = nil
	}
	e.nothingBefore(p, c, topic, "all have been received")
}

func missingTopicCase(e *env) {
	missing := e.unused()
	_, err := e.tryConsumer(e.b, stagebus.ConsumerOptions{Topics: []string{missing}})
	e.want(err, "consume a topic that doesn't exist", stagebus.ErrNotFound)
	if _, ok := errors.AsType[*stagebus.Error](err); !ok {
		e.Errorf("%T is no *stagebus.Error", err)
	} else if !strings.Contains(err.Error(), missing) {
		e.Errorf("%q doesn't name the topic", err)
	}
	_, err = e.b.Admin().Describe(e.ctx(), missing)
	e.want(err, "describe it after the attempt", stagebus.ErrNotFound)
}

func positionedCase(e *env) {
	fresh := e.group("new")
	for _, o := range []stagebus.ConsumerOptions{
		{Group: fresh, Start: stagebus.Start{Kind: stagebus.StartLatest}},
		{Mode: stagebus.Ephemeral},
		{},
	} {
		topic := e.topic(fresh)
		p := e.producer()
		o.Topics = []string{topic}
		c := e.consumerOf(e.b, o)
		e.sendTexts(p, topic, "at once")
		if got := e.take(c, 1); got[0] != "at once" {
			e.Errorf("mode %d, group %q: got %q", o.Mode, o.Group, got)
		}
	}
}

func ephemeralCase(e *env) {
	topic := e.topicOf(2)
	p := e.producer()
	e.sendTexts(p, topic, "before")
	shared := e.consumer(topic, "")
	e.take(shared, 1)
	e.flush(shared)
	before, err := e.b.Admin().Describe(e.ctx(), topic)
	if err != nil {
		e.Fatalf("describe: %v", err)
	}
	o := stagebus.ConsumerOptions{Topics: []string{topic}, Mode: stagebus.Ephemeral}
	a, b := e.consumerOf(e.b, o), e.consumerOf(e.b, o)
	want := numbered("m", 20)
	e.sendTexts(p, topic, want...)
	for what, c := range map[string]stagebus.Consumer{"one Ephemeral": a, "another Ephemeral": b, "the group": shared} {
		if got := e.take(c, len(want)); !equalSets(got, want) {
			e.Errorf("%s got %q, want %q", what, got, want)
		}
	}
	e.closeIt("an Ephemeral", a.Close)
	e.sendTexts(p, topic, "meanwhile")
	a = e.consumerOf(e.b, o)
	e.sendTexts(p, topic, "after")
	if got := e.take(a, 1); got[0] != "after" {
		e.Errorf("an Ephemeral consumer that was opened later got %q", got)
	}
	e.closeIt("an Ephemeral", a.Close)
	e.closeIt("an Ephemeral", b.Close)
	e.eventually("the Ephemeral consumers leave no group behind", func() bool {
		after, err := e.b.Admin().Describe(e.ctx(), topic)
		return err == nil && len(after.Groups) <= len(before.Groups)
	})
}

func laneCase(e *env) {
	g := e.group("g")
	topic := e.topic(g)
	p, c := e.producer(), e.consumer(topic, g)
	e.sendTexts(p, topic, "one", "two")
	ds := e.receive(c, 2)
	if ds[0].Token == ds[1].Token {
		e.Errorf("two deliveries have one token")
	}
	lane := ds[0].Token.Lane
	if ds[1].Token.Lane != lane {
		e.Errorf("two deliveries of one topic of one partition have different lanes")
	}
	if info := lane.Info(); info.Group != g || info.Topic == "" {
		e.Errorf("the lane is %+v, want group g of a topic", info)
	}
	select {
	case <-lane.Draining():
		e.Errorf("the lane drains though nobody closed anything")
	default:
	}
	if err := context.Cause(lane.Context()); err != nil {
		e.Errorf("the lane's context has ended: %v", err)
	}
	e.settle(c, stagebus.Done, ds[0])
	e.closeIt("consumer", c.Close)
	e.await(lane.Draining(), "the lane drains when its consumer is closed")
	e.await(lane.Context().Done(), "the lane's context ends with its consumer")
	e.want(context.Cause(lane.Context()), "the cause of the lane's end", stagebus.ErrStale)
}
