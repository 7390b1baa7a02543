package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/adapters/memory/memorytest"
	"github.com/stagebus/stagebus/pipeline"
)

// scripted is a producer whose outcomes the test gives.
type scripted struct {
	mu      sync.Mutex
	submits [][]string // bodies
	ids     []string
	held    []func()
	hold    bool
	refuse  func(ms []stagebus.Message) error
	outcome func(stagebus.Message) error // nil is durable
}

func (p *scripted) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		if err := p.refuse(ms); err != nil {
			return err
		}
	}
	var bodies []string
	os := make([]stagebus.Outcome, len(ms))
	for i := range ms {
		bodies = append(bodies, string(ms[i].Body))
		p.ids = append(p.ids, ms[i].ID)
		if p.outcome != nil {
			os[i].Err = p.outcome(ms[i])
		}
	}
	p.submits = append(p.submits, bodies)
	if p.hold {
		p.held = append(p.held, sync.OnceFunc(func() { done(os) }))
		context.AfterFunc(ctx, p.held[len(p.held)-1])
		return nil
	}
	go done(os)
	return nil
}

func (p *scripted) Close(context.Context) error { return nil }

// release gives the outcomes of what was held so far.
func (p *scripted) release() {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, f := range held {
		f()
	}
}

func (p *scripted) all() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.submits)
}

// numbered sends the ID of a delivery as the body, under one key.
func numbered(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	return []stagebus.Message{{Topic: "out", Key: d.Key, Body: []byte(d.ID)}}, stagebus.Done
}

// An input isn't settled before its outputs are durable. Meanwhile the handlers of its key go on, but what they return waits, and then goes together.
func TestDurableFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		p := &scripted{hold: true}
		s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p, Handle: numbered})
		sendFrom(t, b, "in", 0, 1, "a")
		synctest.Wait()
		sendFrom(t, b, "in", 1, 4, "a", "b")
		synctest.Wait()
		if n := depth(t, b, "in"); n != 7 {
			t.Errorf("%d of 7 inputs are settled, and no output is durable", 7-n)
		}
		p.release()
		synctest.Wait()
		submits := map[string][][]string{} // by key; several keys may have shared one
		for _, bodies := range p.all() {
			parts := map[string][]string{}
			for _, id := range bodies {
				parts[id[:1]] = append(parts[id[:1]], id)
			}
			for key, ids := range parts {
				submits[key] = append(submits[key], ids)
			}
		}
		if want := map[string][][]string{"a": {{"a/0"}, {"a/1", "a/2", "a/3"}}, "b": {{"b/1"}, {"b/2", "b/3"}}}; !reflect.DeepEqual(submits, want) {
			t.Errorf("sent %v, want %v", submits, want)
		}
		if n := depth(t, b, "in"); n != 6 {
			t.Errorf("%d inputs are left, want 6: b/1 is settled behind a/1, which isn't", n)
		}
		p.release()
		synctest.Wait()
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d inputs are not settled, and all outputs are durable", n)
		}
		s.stop()
		check(t, s.end())
	})
}

// Few submits are on their way at a time, so that batches grow with the load.
func TestOutputsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		p := &scripted{hold: true}
		s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p, Handle: numbered, Workers: 4})
		for i := range 100 {
			send(t, b, "in", 1, fmt.Sprint("key", i))
			synctest.Wait()
		}
		if n := len(p.all()); n != 4 {
			t.Errorf("%d submits are on their way, want 4", n)
		}
		p.release()
		synctest.Wait()
		if all := p.all(); len(all) != 5 || len(all[4]) != 96 {
			t.Errorf("%d submits, the last of %d: want one with all that waited", len(all), len(all[len(all)-1]))
		}
		p.release()
		synctest.Wait()
		s.stop()
		check(t, s.end())
	})
}

// Handlers don't run ahead without bound of what can be sent.
func TestOutputsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{1, 1 << 20} {
			b := newBroker(t, memory.Options{})
			p := &scripted{hold: true}
			var mu sync.Mutex
			handled := 0
			s := start(t, pipeline.Stage{
				Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p, Workers: 2,
				Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
					mu.Lock()
					defer mu.Unlock()
					handled++
					body := make([]byte, size)
					return slices.Repeat([]stagebus.Message{{Topic: "out", Body: body}}, 1<<20/size/1024+1), stagebus.Done
				},
			})
			send(t, b, "in", 10, keys(20)...)
			synctest.Wait()
			mu.Lock()
			if most := max(16, 8192/1025+1) + 1; handled > most {
				t.Errorf("outputs of %d bytes: %d inputs were handled, and nothing was sent: want %d at most", size, handled, most)
			}
			mu.Unlock()
			p.mu.Lock()
			p.hold = false
			p.mu.Unlock()
			p.release()
			synctest.Wait()
			if n := depth(t, b, "in"); n != 0 {
				t.Errorf("outputs of %d bytes: %d inputs are not settled in the end", size, n)
			}
			s.stop()
			check(t, s.end())
		}
	})
}

// A send that failed for certain is done again, and doubles nothing; one that was uncertain can double, under one ID.
func TestFailingSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var faults memorytest.Faults
		b := newBroker(t, memory.Options{}, faults.Middleware())
		send(t, b, "in", 100, keys(10)...)
		faults.Fail(5, stagebus.ErrUnavailable)
		faults.Lose(2)
		var events hook
		s := start(t, pipeline.Stage{
			Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Handle: numbered, Workers: 4, Hook: events.add,
		})
		<-time.After(time.Minute)
		s.stop()
		check(t, s.end())
		if n := depth(t, b, "in"); n != 0 {
			t.Errorf("%d inputs are not settled", n)
		}
		if n := len(events.of(stagebus.EventError)); n != 7 {
			t.Errorf("%d failures were told, want 7", n)
		}
		out, ids := newBook(), map[string]string{}
		copies := 0
		for _, m := range memorytest.Drain(t, b, "out") {
			out.add(string(m.Body))
			if before, ok := ids[string(m.Body)]; ok {
				copies++
				if before != m.ID || m.ID == "" {
					t.Errorf("a copy of %s has ID %q, the first had %q", m.Body, m.ID, before)
				}
			}
			ids[string(m.Body)] = m.ID
		}
		if out.distinct() != 1000 {
			t.Errorf("%d of 1000 outputs", out.distinct())
		}
		if copies == 0 || copies > 512 {
			t.Errorf("%d copies of two lost batches", copies)
		}
		out.inOrder(t)
	})
}

// When a part of a batch fails, what failed is sent again, and what was in the same key behind it, so that the last copies are in order; nothing else.
func TestPartOfABatchFails(t *testing.T) {
	for _, err := range []error{stagebus.ErrUncertain, stagebus.ErrUnavailable, context.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, memory.Options{})
			p := &scripted{hold: true}
			s := start(t, pipeline.Stage{
				Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p,
				Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
					if string(d.Key) == "first" {
						return []stagebus.Message{{Topic: "out", Body: []byte("first")}}, stagebus.Done
					}
					return []stagebus.Message{
						{Topic: "out", Key: d.Key, Body: []byte(d.ID)}, {Topic: "other", Key: d.Key, Body: []byte(d.ID + "-other")},
					}, stagebus.Done
				},
			})
			for i := range 4 { // these keep the submits busy, so that what follows goes together
				send(t, b, "in", 1, "first")
				send(t, b, "in", 1, fmt.Sprint("busy", i))
				synctest.Wait()
			}
			send(t, b, "in", 3, "a", "b")
			synctest.Wait()
			before := len(p.all())
			failed := map[string]bool{}
			p.outcome = func(m stagebus.Message) error {
				id := string(m.Body)
				if failed[id] || id != "a/1" && id != "b/2-other" {
					return nil
				}
				failed[id] = true
				return err
			}
			for range 10 {
				p.release()
				<-time.After(time.Second)
			}
			all := slices.Concat(p.all()[before:]...)
			count := map[string]int{}
			for _, id := range all {
				count[id]++
			}
			for _, key := range []string{"a", "b"} {
				for i := range 3 {
					for _, suffix := range []string{"", "-other"} {
						id := fmt.Sprintf("%s/%d%s", key, i, suffix)
						want := 1
						if id == "a/1" || id == "a/2" || id == "b/2-other" {
							want = 2
						}
						if count[id] != want {
							t.Errorf("%s was sent %d times, want %d: %v", id, count[id], want, p.all()[before:])
						}
					}
				}
			}
			slices.Reverse(all)
			if slices.Index(all, "a/1") < slices.Index(all, "a/2") {
				t.Errorf("the last copies are not in order: %v", all)
			}
			if n := depth(t, b, "in"); n != 0 {
				t.Errorf("%d inputs are not settled", n)
			}
			s.stop()
			check(t, s.end())
		})
	}
}

// Outputs of one key that are too many for one submit go in several, one after the other: a resend can't come behind what followed it.
func TestManyOutputsOfAKey(t *testing.T) {
	for name, size := range map[string]int{"messages": 1, "bytes": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const inputs = 100
				b := newBroker(t, memory.Options{})
				p := &scripted{hold: true}
				s := start(t, pipeline.Stage{
					Consumer: consumer(t, b, stagebus.ConsumerOptions{Prefetch: 2 * inputs}), Producer: p,
					Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
						fill := stagebus.Headers{{Key: "fill", Value: strings.Repeat("x", size)}}
						m := stagebus.Message{Topic: "out", Key: d.Key, Body: []byte(d.ID), Headers: fill}
						return slices.Repeat([]stagebus.Message{m}, max(1, 64/size)), stagebus.Done
					},
				})
				for i := range 4 { // these keep the submits busy, so that what follows goes together
					send(t, b, "in", 1, fmt.Sprint("busy", i))
					synctest.Wait()
				}
				send(t, b, "in", 6, "b") // not as much as a submit takes: some of the other key has room behind it
				send(t, b, "in", inputs, "a")
				synctest.Wait()
				failed := false
				p.outcome = func(m stagebus.Message) error {
					if failed || string(m.Body) != "a/9" {
						return nil
					}
					failed = true
					return stagebus.ErrUnavailable
				}
				for depth(t, b, "in") > 0 && !t.Failed() {
					all, on := p.all(), 0
					for _, ids := range all[len(all)-len(p.held):] {
						if slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, "a/") }) {
							on++
						}
					}
					if on > 1 {
						t.Errorf("%d submits of one key are on their way", on)
					}
					p.release()
					<-time.After(time.Second)
				}
				if n := len(p.all()); n < 10 {
					t.Errorf("%d submits: the outputs were not too many for one", n)
				}
				all := slices.Concat(p.all()...)
				last := map[string]int{}
				for i, id := range all {
					last[id] = i
				}
				for i := 1; i < inputs; i++ {
					if last[fmt.Sprint("a/", i)] < last[fmt.Sprint("a/", i-1)] {
						t.Errorf("a/%d was sent for the last time before the one that it follows", i)
					}
				}
				s.stop()
				check(t, s.end())
			})
		})
	}
}

// An output that can never be sent has its input rejected; those that only shared its batch are sent.
func TestHopelessOutputs(t *testing.T) {
	b := newBroker(t, memory.Options{MaxMessage: 1000})
	send(t, b, "in", 20, "a", "large", "invalid")
	var events hook
	s := start(t, pipeline.Stage{
		Name: "s", Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Workers: 3, Hook: events.add,
		Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
			outs, v := forward(ctx, d)
			switch d.ID {
			case "large/7":
				outs[0].Body = make([]byte, 2000)
			case "invalid/7":
				outs[0].Topic = "no topic"
			}
			return outs, v
		},
	})
	out := newBook().read(t, b, "out")
	out.await(t, 58)
	s.stop()
	check(t, s.end())
	out.inOrder(t)
	if out.duplicates() > 0 || depth(t, b, "in") != 0 {
		t.Errorf("%d duplicates, %d inputs not settled", out.duplicates(), depth(t, b, "in"))
	}
	var reasons []string
	for _, m := range memorytest.Drain(t, b, stagebus.DeadLetterTopic("in", "")) {
		reason, _ := m.Headers.Get(stagebus.HeaderDeadReason)
		reasons = append(reasons, m.ID+": "+reason)
	}
	slices.Sort(reasons)
	if len(reasons) != 2 || !strings.HasPrefix(reasons[0], `invalid/7: stage "s": output to topic "no topic": invalid`) ||
		!strings.HasPrefix(reasons[1], `large/7: stage "s": output to topic "out": send "out": too large`) {
		t.Errorf("%q", reasons)
	}
	if n := len(events.of(stagebus.EventError)); n != 2 {
		t.Errorf("%d events", n)
	}
}

// What somebody must mend ends the stage after some seconds: nothing is lost.
func TestNowhereToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 10, keys(3)...)
		began := time.Now()
		err := pipeline.Run(t.Context(), pipeline.Stage{
			Name: "s", Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b), Workers: 2,
			Handle: func(context.Context, *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				return []stagebus.Message{{Topic: "nowhere"}}, stagebus.Done
			},
		})
		if !errors.Is(err, stagebus.ErrNoRoute) || !strings.HasPrefix(err.Error(), `stage "s": output to topic "nowhere": `) {
			t.Error(err)
		}
		if d := time.Since(began); d < 5*time.Second || d > 8*time.Second {
			t.Errorf("ended after %v", d)
		}
		if n := depth(t, b, "in"); n != 30 {
			t.Errorf("%d of 30 inputs are left", n)
		}
	})
}

// What is behind such an output in its key isn't sent without it: all of it comes again, in order.
func TestLastingRefusalKeepsOrder(t *testing.T) {
	// Together with it, behind it, and still handled when the stage ends.
	for _, takes := range []time.Duration{0, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, memory.Options{})
			send(t, b, "in", 10, "a")
			c := consumer(t, b, stagebus.ConsumerOptions{})
			broken := errors.New("no key to encrypt it with")
			p := &scripted{refuse: func(ms []stagebus.Message) error {
				be := &stagebus.BatchError{Errs: slices.Repeat([]error{stagebus.ErrNotSent}, len(ms))}
				for i := range ms {
					if string(ms[i].Body) == "a/3" {
						be.Errs[i] = broken
						return be
					}
				}
				return nil
			}}
			slow := pipeline.Stage{
				Consumer: c, Producer: p,
				Handle: func(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
					<-time.After(takes)
					return numbered(ctx, d)
				},
			}
			if err := pipeline.Run(t.Context(), slow); !errors.Is(err, broken) {
				t.Error(err)
			}
			out := newBook()
			for _, id := range slices.Concat(p.all()...) {
				out.add(id)
			}
			again := start(t, pipeline.Stage{Consumer: c, Producer: producer(t, b), Handle: forward})
			out.read(t, b, "out").await(t, 10)
			out.inOrder(t)
			if n := out.duplicates(); n > 0 {
				t.Errorf("%d outputs were sent again", n)
			}
			again.stop()
			check(t, again.end())
		})
	}
}

// It goes on if that was mended in time.
func TestMendedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, memory.Options{})
		send(t, b, "in", 10, keys(3)...)
		s := start(t, pipeline.Stage{
			Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: producer(t, b),
			Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
				return []stagebus.Message{{Topic: "later", ID: d.ID}}, stagebus.Done
			},
		})
		<-time.After(3 * time.Second)
		check(t, b.Admin().Declare(t.Context(), stagebus.TopicSpec{Name: "later"}))
		<-time.After(3 * time.Second)
		s.stop()
		check(t, s.end())
		if n := len(memorytest.Drain(t, b, "later")); n != 30 {
			t.Errorf("%d of 30 outputs", n)
		}
	})
}

func TestProducerClosed(t *testing.T) {
	b := newBroker(t, memory.Options{})
	send(t, b, "in", 10, keys(3)...)
	p := producer(t, b)
	check(t, p.Close(within(t)))
	s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p, Handle: forward})
	if err := s.end(); !errors.Is(err, stagebus.ErrClosed) {
		t.Error(err)
	}
	if n := depth(t, b, "in"); n != 30 {
		t.Errorf("%d of 30 inputs are left", n)
	}
}

func TestNoProducer(t *testing.T) {
	b := newBroker(t, memory.Options{})
	send(t, b, "in", 1, "a")
	s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Handle: forward})
	if err := s.end(); !errors.Is(err, stagebus.ErrInvalid) || !strings.Contains(err.Error(), "Stage.Producer") {
		t.Error(err)
	}
	if n := depth(t, b, "in"); n != 1 {
		t.Error("the input was settled")
	}
}

// A Submit that blames nobody, or all at once, neither spins nor rejects anything.
func TestRefusedWithoutACulprit(t *testing.T) {
	for _, refusal := range []func(n int) error{
		func(n int) error { return &stagebus.BatchError{Errs: slices.Repeat([]error{stagebus.ErrNotSent}, n)} },
		func(n int) error { return &stagebus.BatchError{Errs: make([]error, n)} },
		func(int) error { return stagebus.ErrTooLarge },
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, memory.Options{})
			send(t, b, "in", 10, keys(3)...)
			type refused struct {
				id string
				at time.Time
			}
			refusals, before := 0, map[refused]bool{}
			p := &scripted{}
			p.refuse = func(ms []stagebus.Message) error {
				if len(ms) == 1 || refusals == 5 {
					return nil
				}
				refusals++
				for _, m := range ms { // of two Submits at a time, which have different messages, each may be refused
					r := refused{m.ID, time.Now()}
					if m.ID == "" || before[r] {
						t.Errorf("%q was refused twice at one time: there must be a pause after each refusal", m.ID)
					}
					before[r] = true
				}
				return refusal(len(ms))
			}
			s := start(t, pipeline.Stage{Consumer: consumer(t, b, stagebus.ConsumerOptions{}), Producer: p, Handle: numbered})
			<-time.After(time.Minute)
			s.stop()
			check(t, s.end())
			if n := depth(t, b, "in"); n != 0 {
				t.Errorf("%d inputs are not settled", n)
			}
			if refusals != 5 {
				t.Errorf("%d refusals", refusals)
			}
			if info := memorytest.Drain(t, b, stagebus.DeadLetterTopic("in", "")); len(info) > 0 {
				t.Errorf("%d inputs were rejected", len(info))
			}
		})
	}
}
