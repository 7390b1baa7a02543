package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
	"github.com/stagebus/stagebus/adapters/memory"
)

// trial is what differs between brokers when a message is sent there and back.
type trial struct {
	refused       func(doing string, err error) (finding, bool) // whether it was for want of a right, or of a setting
	late          func(ctx context.Context) error               // what may have kept something from happening in time, or nil
	clock         func(ctx context.Context, samples []sample) finding
	readOnlyClock func(ctx context.Context) finding
	cleanUp       func(ctx context.Context) error // removes all that was made, or what was made beside the topic
}

// sample is one message whose arrival the broker stamped.
type sample struct{ before, after, stamped time.Time }

// trial makes a topic of its own, sends messages through it with the adapter, compares clocks and removes what it made.
func (x *exam) trial(ctx context.Context, t trial) {
	if x.ReadOnly {
		x.skip("not done when read-only", stepDeclare, stepRoundTrip)
		switch {
		case t.readOnlyClock != nil:
			x.step(ctx, stepClock, "", t.readOnlyClock)
		case t.clock != nil:
			x.skip("only messages show it, and none are sent when read-only", stepClock)
		}
		return
	}
	var w watcher
	b, err := x.open(w.hook)
	if err != nil { // ParseURL has found it good
		x.note(stepDeclare, x.name, 0, wrong(err.Error(), "correct the URL"))
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.Timeout)
		defer cancel()
		_ = b.Close(ctx) // what was to be found out has been
	}()
	ok := x.step(ctx, stepDeclare, x.name, func(ctx context.Context) finding {
		spec := stagebus.TopicSpec{Name: x.name}
		if x.patient.kafka != nil {
			spec.Partitions, spec.Config = 1, map[string]string{"message.timestamp.type": "LogAppendTime"}
		}
		if err := b.Admin().Declare(ctx, spec); err != nil {
			return x.trouble(t, &w, "make the topic "+x.name, err)
		}
		return fine("made %s", x.name)
	})
	// Also after a failure: an answer that was lost may have been a yes.
	defer x.cleanUp(ctx, b, t, ok)
	if !ok {
		x.skipRest(stepRoundTrip)
		if t.clock != nil {
			x.skipRest(stepClock)
		}
		return
	}
	var samples []sample
	ok = x.longStep(ctx, 3*x.Timeout, stepRoundTrip, "", func(ctx context.Context) finding {
		var f finding
		samples, f = x.roundTrip(ctx, b, t, &w)
		return f
	})
	switch {
	case t.clock == nil:
	case !ok:
		x.skipRest(stepClock)
	default:
		x.step(ctx, stepClock, "", func(ctx context.Context) finding { return t.clock(ctx, samples) })
	}
}

func (x *exam) open(hook stagebus.Hook) (*stagebus.Broker, error) {
	switch {
	case x.patient.amqp != nil:
		o := *x.patient.amqp
		// Not the real one, so that nothing is left behind where none was.
		o.Exchange, o.Hook = x.name, hook
		return amqp.New(o)
	case x.patient.kafka != nil:
		o := *x.patient.kafka
		o.Hook = hook
		return kafka.New(o)
	}
	return memory.Open(x.patient.url, memory.Options{Hook: hook})
}

func (x *exam) roundTrip(ctx context.Context, b *stagebus.Broker, t trial, w *watcher) ([]sample, finding) {
	p, err := b.Producer(ctx, stagebus.ProducerOptions{})
	if err != nil {
		return nil, x.trouble(t, w, "publish to "+x.name, err)
	}
	defer p.Close(ctx) //nolint:errcheck // each outcome is known
	o := stagebus.ConsumerOptions{Topics: []string{x.name}}
	if x.patient.kafka != nil {
		o.Group = x.name // a member of the default group would make its other members rebalance
	}
	c, err := b.Consumer(ctx, o)
	if err != nil {
		return nil, x.trouble(t, w, "consume from "+x.name, err)
	}
	defer c.Close(ctx) //nolint:errcheck // nobody needs the group's place
	var samples []sample
	var took []time.Duration
	for i := range x.Messages {
		body := fmt.Sprintf("stagebus doctor, message %d of %d", i+1, x.Messages)
		before := x.world.now()
		began := time.Now()
		if err := stagebus.Send(ctx, p, stagebus.Message{Topic: x.name, Body: []byte(body)}); err != nil {
			return nil, x.trouble(t, w, "publish to "+x.name, err)
		}
		after := x.world.now()
		var d [1]stagebus.Delivery
		if _, err := c.Receive(ctx, d[:]); err != nil {
			return nil, x.trouble(t, w, "consume from "+x.name, err)
		}
		took = append(took, time.Since(began))
		if string(d[0].Body) != body {
			return nil, wrong(fmt.Sprintf("published was %q, and %q came", body, d[0].Body), "see what else publishes to "+x.name+", or changes messages on the way")
		}
		if err := c.Settle(ctx, stagebus.Done, d[0].Token); err != nil {
			return nil, x.trouble(t, w, "settle messages of "+x.name, err)
		}
		samples = append(samples, sample{before, after, d[0].Time})
	}
	if err := c.Flush(ctx); err != nil {
		return nil, x.trouble(t, w, "settle messages of "+x.name, err)
	}
	slices.Sort(took)
	return samples, fine("%d messages, one after the other: half within %s, all within %s", len(took), Brief(took[len(took)/2]), Brief(took[len(took)-1]))
}

// trouble says why the adapter couldn't do something.
func (x *exam) trouble(t trial, w *watcher, doing string, err error) finding {
	why, failed := w.seen()
	if why != "" {
		return ill(fmt.Sprintf("the broker takes no messages for now (%s)", why), blockedDo(why))
	}
	late := timedOut(err)
	if late && failed == nil && t.late != nil {
		ctx, cancel := context.WithTimeout(context.Background(), sniffTimeout) // the step's time is over
		failed = t.late(ctx)
		cancel()
	}
	if late && failed != nil {
		err = failed
	}
	if t.refused != nil {
		if f, ok := t.refused(doing, err); ok {
			return f
		}
	}
	cause, do := "can't "+doing+": "+oneCause(err), "see the broker's log"
	var e *stagebus.Error
	if errors.As(err, &e) && e.Do != "" && !late {
		do = e.Do
	}
	f := wrong(cause, do)
	f.heals = errors.Is(err, stagebus.ErrUnavailable) || errors.Is(err, stagebus.ErrUncertain) || late
	return f
}

// oneCause is the cause of an adapter's error, whose circumstances stand in the step.
func oneCause(err error) string {
	var e *stagebus.Error
	if errors.As(err, &e) && e.Kind != nil {
		s := e.Kind.Error()
		if e.Cause != nil {
			s += ": " + e.Cause.Error()
		}
		return strings.ReplaceAll(s, "\n", "; ")
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// blockedDo is what lets RabbitMQ take messages again.
func blockedDo(why string) string {
	switch {
	case strings.Contains(why, "disk"):
		return "free space on the broker's disk, or lower disk_free_limit in rabbitmq.conf (rabbitmqctl set_disk_free_limit 50MB until it restarts)"
	case strings.Contains(why, "memory"):
		return "consume what is queued, or give it more memory: vm_memory_high_watermark in rabbitmq.conf (rabbitmqctl set_vm_memory_high_watermark 0.6 until it restarts)"
	}
	return "see its alarms: rabbitmq-diagnostics alarms"
}

// watcher remembers what an adapter tells beside its errors: that the broker takes no messages, and why something is tried again until the
// time is over.
type watcher struct {
	mu     sync.Mutex // protects the following
	reason string     // of being blocked
	failed error      // what is tried again
}

func (w *watcher) hook(e stagebus.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Kind {
	case stagebus.EventBlocked:
		w.reason = e.Err.Error()
	case stagebus.EventUnblocked:
		w.reason = ""
	case stagebus.EventError:
		w.failed = e.Err
	default:
		// what matters of the rest comes as an error
	}
}

func (w *watcher) seen() (blocked string, failed error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason, w.failed
}

// cleanUp removes what was made, and says so only where that fails. made: it is known to be there.
func (x *exam) cleanUp(ctx context.Context, b *stagebus.Broker, t trial, made bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.Timeout)
	defer cancel()
	began := time.Now()
	var errs []error
	if x.patient.amqp == nil {
		errs = append(errs, b.Admin().Delete(ctx, x.name))
	}
	if t.cleanUp != nil {
		errs = append(errs, t.cleanUp(ctx))
	}
	if err := errors.Join(errs...); err != nil && made {
		x.note(stepCleanUp, x.name, time.Since(began), finding{status: Warn,
			cause: fmt.Sprintf("%s could not be deleted and is left on the broker: %s", x.name, oneCause(err)),
			do:    "stagebus topics delete --yes " + x.name})
	}
}

// Brief is a duration in three digits, as people read it.
func Brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
