package demo

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

func deliver(m stagebus.Message) *stagebus.Delivery { return &stagebus.Delivery{Message: m} }

// answerStream returns the stream of an answer to prompt 3.
func answerStream(tokens ...string) []stagebus.Message {
	s := testStage(infer1)
	var ms []stagebus.Message
	for i, token := range tokens {
		m := s.message(topicTokens, kindToken, headerPart, i)
		m.Key, m.Body = []byte("3"), []byte(token)
		ms = append(ms, m)
	}
	end := s.json(topicTokens, kindToken, streamEnd{Prompt{3, "of the"}, infer1}, headerEnd, true, headerPart, len(tokens))
	end.Key = []byte("3")
	return append(ms, end)
}

// Each token comes three times, in any order: one answer comes out, whole.
func TestScribe(t *testing.T) {
	for seed := range uint64(20) {
		once := answerStream("light", "light", ",", "i", "saw", ",", ".")
		ms := slices.Concat(once, once, once)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		w := &scribe{s: testStage(postprocess), streams: map[string]*stream{}}
		var out []stagebus.Message
		for _, m := range ms {
			got, v := w.handle(t.Context(), deliver(m))
			if v != stagebus.Done {
				t.Fatalf("%+v", v)
			}
			out = append(out, got...)
		}
		if len(out) != 1 {
			t.Fatalf("%d answers came out", len(out))
		}
		var a Answer
		if err := json.Unmarshal(out[0].Body, &a); err != nil {
			t.Fatal(err)
		}
		if want := (Answer{Prompt{3, "of the"}, "Of the light, I saw,", 7, infer1}); a != want {
			t.Errorf("got %+v, want %+v", a, want)
		}
		if n := w.s.duplicates.get(); n != 2*len(once) {
			t.Errorf("%d duplicates counted, %d there were", n, 2*len(once))
		}
	}
}

// Whatever is missing of a stream, no answer comes out.
func TestScribeWaits(t *testing.T) {
	whole := answerStream("a", "b", "c")
	for missing := range whole {
		w := &scribe{s: testStage(postprocess), streams: map[string]*stream{}}
		for i, m := range whole {
			if i == missing {
				continue
			}
			if out, v := w.handle(t.Context(), deliver(m)); len(out) > 0 || v != stagebus.Done {
				t.Errorf("without part %d: %d answers, %+v", missing, len(out), v)
			}
		}
	}
}

// Two streams that are not the same are not mixed.
func TestScribeRefuses(t *testing.T) {
	good := answerStream("a", "b")
	other := answerStream("a", "c")
	longer := answerStream("a", "b", "c")
	foreign := good[0]
	foreign.Type = "io.example"
	numberless := good[0]
	numberless.Key = []byte("x")
	for name, bad := range map[string]stagebus.Message{
		"another token": other[1], "another end": longer[3], "a foreign message": foreign, "no prompt": numberless,
	} {
		w := &scribe{s: testStage(postprocess), streams: map[string]*stream{}}
		for _, m := range []stagebus.Message{good[1], good[2]} {
			w.handle(t.Context(), deliver(m))
		}
		if out, v := w.handle(t.Context(), deliver(bad)); v.Kind != stagebus.KindReject || len(out) > 0 {
			t.Errorf("%s: %+v, %d answers", name, v, len(out))
		}
	}
}

// smallDataset is the data set of a made-up text.
func smallDataset(t *testing.T, s *stage) []stagebus.Message {
	t.Helper()
	s.o.Text = MadeUp(1)
	e := &encoder{s: s}
	var sentences []stagebus.Message
	ps := lm.Paragraphs(s.o.Text.Body)[:40]
	for i, p := range ps {
		m := s.message(topicText, kindParagraph, headerParagraph, i, headerParagraphs, len(ps))
		m.Body = []byte(p)
		out, v := s.normalise(t.Context(), deliver(m))
		if v != stagebus.Done {
			t.Fatal(v)
		}
		sentences = append(sentences, out...)
	}
	var parts []stagebus.Message
	for _, m := range slices.Backward(slices.Concat(sentences, sentences[:7])) { // another order, and some twice
		out, v := e.handle(t.Context(), deliver(m))
		if v != stagebus.Done {
			t.Fatal(v)
		}
		parts = append(parts, out...)
	}
	return parts
}

// trainByHand runs the optimiser and its workers by hand. between may double and reorder the gradients of a step.
func trainByHand(t *testing.T, steps int, between func([]stagebus.Message) []stagebus.Message) (digest string, duplicates int) {
	t.Helper()
	s := testStage(preprocess)
	s.o.Size.Steps, s.o.Size.Batch = steps, 64
	workers := [trainers]*stage{testStage(train1), testStage(train2)}
	o := newOptimiser(s)
	var out []stagebus.Message
	handle := func(m stagebus.Message) {
		got, v := o.handle(t.Context(), deliver(m))
		if v != stagebus.Done {
			t.Fatal(v)
		}
		out = append(out, got...)
	}
	for _, m := range smallDataset(t, s) {
		handle(m)
	}
	for len(out) > 0 {
		m := out[0]
		out = out[1:]
		switch m.Type {
		case typePrefix + kindParameters:
			var gs []stagebus.Message
			for k, w := range workers {
				g, err := w.gradient(deliver(m), k)
				if err != nil {
					t.Fatal(err)
				}
				gs = append(gs, g)
			}
			for _, g := range between(gs) {
				handle(g)
			}
		case typePrefix + kindReport:
			var r Report
			if err := json.Unmarshal(m.Body, &r); err != nil {
				t.Fatal(err)
			}
			if r.Trained.Difference > maxDifference || r.Trained.Difference == 0 && steps > 5 {
				t.Errorf("two workers differ from one by %v", r.Trained.Difference)
			}
			return r.Trained.Digest, s.duplicates.get()
		}
	}
	t.Fatal("training did not end")
	return "", 0
}

// Gradients that come twice, late, and in another order change nothing, not a bit.
func TestTrainingWithDuplicates(t *testing.T) {
	const steps = 12
	plain, none := trainByHand(t, steps, func(gs []stagebus.Message) []stagebus.Message { return gs })
	random := rand.New(rand.NewPCG(1, 2))
	var old []stagebus.Message
	chaotic, some := trainByHand(t, steps, func(gs []stagebus.Message) []stagebus.Message {
		all := slices.Concat(gs[:1], old, gs[:1], gs[1:], gs)
		if random.IntN(2) == 0 {
			all = slices.Concat(old, gs[1:], gs[1:], gs[:1], gs)
		}
		old = gs
		return all
	})
	if plain != chaotic {
		t.Errorf("the parameters are %.12s, without duplicates %.12s", chaotic, plain)
	}
	if none != 7 || some <= none { // smallDataset doubles 7
		t.Errorf("%d and %d duplicates counted", none, some)
	}
	swapped, _ := trainByHand(t, steps, func(gs []stagebus.Message) []stagebus.Message { slices.Reverse(gs); return gs })
	if plain != swapped {
		t.Errorf("in another order the parameters are %.12s, not %.12s", swapped, plain)
	}
}

func TestOptimiserRefuses(t *testing.T) {
	s := testStage(preprocess)
	s.o.Size.Batch = 64
	o := newOptimiser(s)
	stop := make(chan struct{})
	o.stop = stop
	var out []stagebus.Message
	for _, m := range smallDataset(t, s) {
		got, _ := o.handle(t.Context(), deliver(m))
		out = append(out, got...)
	}
	i := slices.IndexFunc(out, func(m stagebus.Message) bool { return m.Type == typePrefix+kindParameters })
	good, err := testStage(train1).gradient(deliver(out[i]), 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m *stagebus.Message){
		"too short":         func(m *stagebus.Message) { m.Body = m.Body[:80] },
		"of no shard":       func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerShard, strconv.Itoa(trainers)) },
		"of no step":        func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerStep, "x") },
		"with an odd loss":  func(m *stagebus.Message) { m.Headers = m.Headers.Set(headerLoss, "NaN") },
		"of another type":   func(m *stagebus.Message) { m.Type = "" },
		"with no data left": func(m *stagebus.Message) { m.Body = nil },
	} {
		m := good.Clone()
		change(&m)
		if _, v := o.handle(t.Context(), deliver(m)); v.Kind != stagebus.KindReject {
			t.Errorf("a gradient %s: %+v", name, v)
		}
	}
	for name, change := range map[string]func(m *stagebus.Message){
		"cut off":         func(m *stagebus.Message) { m.Body = m.Body[:100] },
		"without a shape": func(m *stagebus.Message) { m.Headers = m.Headers.Del(headerShape) },
		"with a bad word": func(m *stagebus.Message) { m.Body = append(m.Body[:len(m.Body)-2], 0xff, 0xff) },
		"of a giant": func(m *stagebus.Message) {
			m.Headers = m.Headers.Set(headerShape, `{"context":4000,"width":4000,"hidden":4000,"classes":[0,60000]}`)
		},
	} {
		m := out[i].Clone()
		change(&m)
		if _, err := testStage(train2).gradient(deliver(m), 1); err == nil {
			t.Errorf("a worker takes parameters %s", name)
		}
	}
	close(stop)
	<-o.reference
}

func TestHistoryPadsShortPrompts(t *testing.T) {
	v := &lm.Vocabulary{Words: []string{".", "light", lm.Unknown}, Counts: []int{3, 2, 1}}
	w := &answerer{vocabulary: v, context: 3}
	for prompt, want := range map[string][]uint16{"": {0, 0, 0}, "Light": {0, 0, 0, 1}, "what light": {0, 0, 0, 2, 1}} {
		if got := w.history(prompt); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", prompt, got, want)
		}
	}
}

func TestBeginnings(t *testing.T) {
	got := beginnings(strings.Fields("the red rays of the sun . and so it is not that . # a b c d e . every wall has its own shadow ."))
	if want := []string{"the red rays of the", "every wall has its own"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := beginnings(strings.Fields("one , two")); !slices.Equal(got, []string{"one , two"}) {
		t.Errorf("got %q", got)
	}
}

func TestBreakUp(t *testing.T) {
	long := strings.Repeat("word ", 3*paragraphSize/5)
	parts := breakUp([]string{"short", strings.TrimSpace(long), strings.Repeat("x", paragraphSize+1)})
	for _, p := range parts {
		if len(p) > paragraphSize || p == "" {
			t.Errorf("a part of %d bytes", len(p))
		}
	}
	if got := strings.Join(parts[1:len(parts)-2], " "); got != strings.TrimSpace(long) {
		t.Error("words were lost or torn")
	}
}

func TestMadeUp(t *testing.T) {
	a, b := MadeUp(1), MadeUp(2)
	if a.Body == b.Body || a.Body != MadeUp(1).Body {
		t.Error("the seed doesn't decide")
	}
	for w := range strings.FieldsSeq(a.Body) {
		if strings.ToLower(w) != w {
			t.Fatalf("a symbol of the grammar is left: %s", w)
		}
	}
	if !strings.Contains(a.Name, "made up") {
		t.Errorf("it doesn't say so: %s", a.Name)
	}
}
