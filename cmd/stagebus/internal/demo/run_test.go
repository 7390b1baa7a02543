package demo

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a memory broker, and the options of a small run on it.
type world struct {
	t *testing.T
	b *stagebus.Broker
	o Options
}

func newWorld(t *testing.T, layers ...stagebus.Middleware) *world {
	t.Helper()
	u := &url.URL{Scheme: "memory", Host: strings.ToLower(t.Name())}
	count := meter.New()
	stack, err := stagebus.NewStack(append([]stagebus.Middleware{count.Middleware()}, layers...)...)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(context.Context) (*stagebus.Broker, error) { return memory.Open(u, memory.Options{Stack: stack}) }
	b, err := memory.Open(u, memory.Options{}) // the topics live as long as it does
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	text := MadeUp(1)
	text.Body = strings.Join(lm.Paragraphs(text.Body)[:60], "\n\n")
	return &world{t, b, Options{
		Connect: connect, Scheme: "memory", Meter: count, Prefix: "demo.test", Text: text, Seed: 1,
		Size: Size{Words: 100, Context: 2, Width: 6, Hidden: 8, Classes: 8, Batch: 128, Steps: 30, Rate: 0.03},
		Note: func(s string) { t.Log(s) },
	}}
}

// topics returns the names of what is on the broker.
func (w *world) topics() []string {
	w.t.Helper()
	infos, err := w.b.Admin().List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names
}

// good runs the demo and checks that it came to its end.
func (w *world) good() *Summary {
	w.t.Helper()
	s, err := Run(w.t.Context(), w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.check(s)
	return s
}

func (w *world) check(s *Summary) {
	w.t.Helper()
	for _, c := range s.Claims {
		w.t.Logf("%+v", c)
	}
	if broken := s.Broken(); len(broken) > 0 || len(s.Claims) < 4 {
		w.t.Errorf("broken claims: %+v", broken)
	}
	for _, t := range s.Topics {
		if t.Received == 0 || t.Sent == 0 {
			w.t.Errorf("nothing went through topic %+v", t)
		}
	}
	if got := w.topics(); len(got) > 0 && !w.o.Keep {
		w.t.Errorf("topics are left: %v", got)
	}
}

// double sends everything twice, as a producer may that resends what was uncertain.
func double() stagebus.Middleware {
	return stagebus.Middleware{Name: "double", Layer: stagebus.Policy, Producer: func(p stagebus.Producer) stagebus.Producer { return doubler{p} }}
}

type doubler struct{ inner stagebus.Producer }

func (d doubler) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	return d.inner.Submit(ctx, slices.Concat(ms, ms), func(os []stagebus.Outcome) { done(os[:len(os)/2]) })
}
func (d doubler) Close(ctx context.Context) error { return d.inner.Close(ctx) }

// Every message comes twice, and nothing is different.
func TestEverythingTwice(t *testing.T) {
	plain := newWorld(t).good()
	var twice *Summary
	synctest.Test(t, func(t *testing.T) { twice = newWorld(t, double()).good() }) // where time passes only while all wait
	if twice.Seconds > 0.5 {
		t.Errorf("it waited for %v s: something was not settled", twice.Seconds)
	}
	if plain.Trained.Digest != twice.Trained.Digest || plain.Trained.After != twice.Trained.After {
		t.Errorf("%+v differs from %+v", twice.Trained, plain.Trained)
	}
	if !slices.EqualFunc(plain.Answers, twice.Answers, func(a, b Answer) bool { return a.Answer == b.Answer && a.Tokens == b.Tokens }) {
		t.Errorf("%+v differs from %+v", twice.Answers, plain.Answers)
	}
	// A paragraph and what comes of it are sentences four times; so it is with the gradients of two shards. The rest are tokens.
	most := 3*plain.Trained.Paragraphs + 3*2*plain.Trained.Steps
	if plain.Duplicates != 0 || twice.Duplicates <= most {
		t.Errorf("%d and %d duplicates, %d of them not of tokens", plain.Duplicates, twice.Duplicates, most)
	}
}

func TestChaos(t *testing.T) {
	w := newWorld(t)
	w.o.Chaos = true
	s := w.good()
	if s.Killed != 2 || s.Trained.Duplicates == 0 || len(s.Claims) != 5 {
		t.Errorf("%d killed, %d duplicates, %d claims", s.Killed, s.Trained.Duplicates, len(s.Claims))
	}
}

// Six runs of one stage each, the last first, are one run of six.
func TestStagesApart(t *testing.T) {
	w := newWorld(t)
	together := w.good()
	var wg sync.WaitGroup
	var last *Summary
	for _, name := range slices.Backward(Stages) {
		o := w.o
		o.Stage, o.Prefix = name, "demo.apart"
		if name != preprocess {
			o.Text, o.Size, o.Seed = Text{}, Size{}, 0 // nobody else needs them
		}
		started := make(chan struct{})
		o.Connect = func(ctx context.Context) (*stagebus.Broker, error) {
			defer closeOnce(started)
			return w.o.Connect(ctx)
		}
		wg.Go(func() {
			s, err := Run(t.Context(), o)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if name == postprocess {
				last = s
			} else if s != nil {
				t.Errorf("%s has a summary", name)
			}
		})
		<-started
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	w.check(last)
	if last.Trained.Digest != together.Trained.Digest {
		t.Errorf("apart the parameters are %.12s, together %.12s", last.Trained.Digest, together.Trained.Digest)
	}
}

func TestKeep(t *testing.T) {
	w := newWorld(t)
	w.o.Keep = true
	w.good()
	if got := w.topics(); len(got) != len(topics) {
		t.Errorf("kept are %v", got)
	}
}

func TestPrompts(t *testing.T) {
	w := newWorld(t)
	w.o.Prompts = []string{"The red Light", "nobody knows these words"}
	s := w.good()
	if len(s.Answers) != 2 || !strings.HasPrefix(s.Answers[0].Answer, "The red light") || s.Answers[1].Text != w.o.Prompts[1] {
		t.Errorf("%+v", s.Answers)
	}
}

var errStop = errors.New("that is enough")

// Stopped in the middle, it ends in order and leaves nothing.
func TestInterrupt(t *testing.T) {
	for _, stage := range []string{"", postprocess} {
		t.Run("stage"+stage, func(t *testing.T) {
			w := newWorld(t)
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			w.o.Progress = func(p Progress) {
				if p.Step == 5 {
					stop(errStop)
				}
			}
			var wg sync.WaitGroup
			if stage != "" { // the others are stopped by it
				for _, name := range Stages[:len(Stages)-1] {
					o := w.o
					o.Stage = name
					wg.Go(func() {
						if _, err := Run(t.Context(), o); err != nil {
							t.Errorf("%s: %v", name, err)
						}
					})
				}
			}
			w.o.Stage = stage
			if s, err := Run(ctx, w.o); !errors.Is(err, errStop) || s != nil {
				t.Errorf("got %v, %v", s, err)
			}
			wg.Wait()
			if got := w.topics(); len(got) > 0 && stage == "" {
				t.Errorf("topics are left: %v", got)
			}
		})
	}
}

func TestTextTooShort(t *testing.T) {
	for name, body := range map[string]string{
		"empty": "", "few paragraphs": "One.\n\nTwo.", "no word twice": strings.Join(strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z"), "\n\n"),
		"nothing held out": strings.Repeat("one two\n\n", 9) + "\n\n" + strings.Repeat("one two\n\n", 2) + strings.Repeat("§\n\n", 30),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.o.Text = Text{"book.txt", body}
			s, err := Run(t.Context(), w.o)
			if err == nil || s != nil || !strings.Contains(err.Error(), "book.txt") {
				t.Errorf("got %v, %v", s, err)
			}
			if got := w.topics(); len(got) > 0 {
				t.Errorf("topics are left: %v", got)
			}
		})
	}
}

func TestBrokerFails(t *testing.T) {
	w := newWorld(t)
	w.o.Connect = func(context.Context) (*stagebus.Broker, error) { return nil, stagebus.ErrUnavailable }
	if s, err := Run(t.Context(), w.o); !errors.Is(err, stagebus.ErrUnavailable) || s != nil {
		t.Errorf("got %v, %v", s, err)
	}
}

// A claim is no ornament: each fails when what it says is not so.
func TestClaimsFail(t *testing.T) {
	whole := func() *Summary {
		return &Summary{
			Trained:  &Trained{After: 79, Unigram: 100, Difference: 1e-9, Digest: "d", Prompts: 1},
			Deployed: []Deployed{{infer1, "d"}, {infer2, "d"}}, Answers: []Answer{{Tokens: 3}}, Calm: "d", Killed: 2,
		}
	}
	for i, breakIt := range []func(*Summary){
		func(s *Summary) { s.Trained.After = 81 },
		func(s *Summary) { s.Trained.Difference = 2e-6 },
		func(s *Summary) { s.Deployed[1].Digest = "e" },
		func(s *Summary) { s.Answers = nil },
		func(s *Summary) { s.Calm = "e" },
		func(s *Summary) { s.Killed = 1 },
		func(s *Summary) { s.Deployed = nil },
	} {
		s := whole()
		s.Claims = append(s.claims(), s.same(2))
		if broken := s.Broken(); len(broken) > 0 {
			t.Fatalf("broken before it was touched: %+v", broken)
		}
		breakIt(s)
		s.Claims = append(s.claims(), s.same(2))
		if broken := s.Broken(); len(broken) != 1 {
			t.Errorf("change %d: broken are %+v", i, broken)
		}
	}
}

// Who waits for stages that nobody has started is told so.
func TestMissingStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancelCause(t.Context())
		notes := make(chan string, 10)
		w.o.Stage, w.o.Note = postprocess, func(s string) { notes <- s }
		ended := make(chan error)
		go func() {
			_, err := Run(ctx, w.o)
			ended <- err
		}()
		if got, want := <-notes, "still waiting for preprocess, train-1, train-2, infer-1, infer-2 to start, with --prefix demo.test and the same broker"; got != want {
			t.Errorf("got %q", got)
		}
		stop(errStop)
		if err := <-ended; !errors.Is(err, errStop) {
			t.Error(err)
		}
		if got := w.topics(); len(got) > 0 {
			t.Errorf("topics are left: %v", got)
		}
	})
}

// A stage that can't go on says why, to who waits for it and to its own user.
func TestStageFails(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancelCause(t.Context())
	notes := make(chan string, 100)
	w.o.Note = func(s string) { notes <- s }
	last := w.o
	last.Stage = postprocess
	ended := make(chan error)
	go func() {
		_, err := Run(ctx, last)
		ended <- err
	}()
	w.o.Stage, w.o.Text = preprocess, Text{"book.txt", "One.\n\nTwo."}
	_, err := Run(t.Context(), w.o)
	if err == nil || !strings.Contains(err.Error(), "book.txt has 2 paragraphs") {
		t.Errorf("got %v", err)
	}
	if got := <-notes; !strings.HasPrefix(got, "preprocess failed: book.txt has 2 paragraphs") {
		t.Errorf("got %q", got)
	}
	stop(errStop)
	if err := <-ended; !errors.Is(err, errStop) {
		t.Error(err)
	}
}

// An inference worker that starts again has its model again, whether it was stopped or died, and though nobody sends it twice.
func TestModelAgain(t *testing.T) {
	w := newWorld(t)
	w.o.Stage = infer1
	s, err := w.o.open(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close() //nolint:errcheck // memory
	v := &lm.Vocabulary{Words: []string{"a", ".", lm.Unknown}, Counts: []int{3, 2, 1}}
	shape := lm.Shape{Context: 2, Width: 2, Hidden: 3, Classes: v.Classes(2)}
	theta := shape.Start(v, make([]float64, 6), 1)
	if err := s.send(t.Context(), s.split(topicDeployment, kindModel, bundle{shape, v, 1}.append(theta))...); err != nil {
		t.Fatal(err)
	}
	reports, err := s.consume(t.Context(), readerNamed("collect"), 8)
	if err != nil {
		t.Fatal(err)
	}
	for life, die := range []bool{false, true, false} {
		ctx, stop := context.WithCancelCause(t.Context())
		var b *stagebus.Broker
		o := w.o
		o.Connect = func(ctx context.Context) (*stagebus.Broker, error) {
			b, err = w.o.Connect(ctx)
			return b, err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = Run(ctx, o) // stopped or dead
		}()
		var r Report
		for ds := make([]stagebus.Delivery, 1); r.Deployed == nil; {
			r = Report{}
			if _, err := reports.Receive(t.Context(), ds); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(ds[0].Body, &r); err != nil {
				t.Fatal(err)
			}
			if err := reports.Settle(t.Context(), stagebus.Done, ds[0].Token); err != nil {
				t.Fatal(err)
			}
		}
		if r.Deployed.Digest != lm.Digest(theta) {
			t.Errorf("life %d: it has the parameters %s, not %s", life, r.Deployed.Digest, lm.Digest(theta))
		}
		if die {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			_ = b.Close(now) // that is how it dies
		}
		stop(errStop)
		<-ended
	}
}
