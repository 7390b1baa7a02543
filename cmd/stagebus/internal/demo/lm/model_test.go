package lm

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// tiny is a model of 11 words in 3 classes with random parameters, and examples for it.
func tiny(t *testing.T, seed uint64) (Shape, []float64, []uint16) {
	t.Helper()
	s := Shape{Context: 2, Width: 3, Hidden: 5, Classes: []int{0, 1, 4, 11}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	theta := make([]float64, s.Size())
	for i := range theta {
		theta[i] = random.NormFloat64()
	}
	examples := make([]uint16, 24*s.Stride())
	for i := range examples {
		examples[i] = uint16(random.IntN(s.Words()))
	}
	return s, theta, examples
}

func model(t *testing.T, s Shape, theta []float64) *Model {
	t.Helper()
	m, err := NewModel(s, theta)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func loss(t *testing.T, m *Model, examples []uint16) float64 {
	t.Helper()
	l, err := m.Loss(examples)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The gradient of each parameter is the slope of the loss there.
func TestGradient(t *testing.T) {
	s, theta, examples := tiny(t, 7)
	m := model(t, s, theta)
	g := make([]float64, len(theta))
	sum, err := m.Gradient(examples, g)
	if err != nil {
		t.Fatal(err)
	}
	if l := loss(t, m, examples); l != sum {
		t.Errorf("Gradient says the loss is %v, Loss says %v", sum, l)
	}
	const h, tolerance = 1e-6, 1e-6
	moved := 0
	for i, x := range theta {
		theta[i] = x + h
		up := loss(t, m, examples)
		theta[i] = x - h
		down := loss(t, m, examples)
		theta[i] = x
		slope := (up - down) / (2 * h)
		if math.Abs(slope-g[i]) > tolerance*(1+math.Abs(slope)) {
			t.Errorf("parameter %d: gradient %v, slope %v", i, g[i], slope)
		}
		if slope != 0 {
			moved++
		}
	}
	if moved < len(theta)/2 {
		t.Errorf("only %d of %d parameters matter: the check says nothing", moved, len(theta))
	}
}

func TestProbabilitiesAddUpToOne(t *testing.T) {
	s, theta, _ := tiny(t, 3)
	m := model(t, s, theta)
	sum := 0.0
	for w := range s.Words() {
		sum += math.Exp(-loss(t, m, []uint16{4, 9, uint16(w)}))
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("the probabilities of all words add up to %v", sum)
	}
}

// The sum over two halves is that over the whole, but for rounding.
func TestHalves(t *testing.T) {
	s, theta, examples := tiny(t, 5)
	m := model(t, s, theta)
	whole, halves := make([]float64, len(theta)), make([]float64, len(theta))
	half := 12 * s.Stride()
	for _, p := range []struct {
		examples []uint16
		g        []float64
	}{{examples, whole}, {examples[:half], halves}, {examples[half:], halves}} {
		if _, err := m.Gradient(p.examples, p.g); err != nil {
			t.Fatal(err)
		}
	}
	if d := Difference(whole, halves); d > 1e-12 {
		t.Errorf("they differ by %v", d)
	}
}

func TestModelRefuses(t *testing.T) {
	s, theta, examples := tiny(t, 1)
	m := model(t, s, theta)
	g := make([]float64, len(theta))
	for name, bad := range map[string][]uint16{"half an example": examples[:4], "a word that doesn't exist": {0, 0, 11}} {
		if _, err := m.Loss(bad); err == nil {
			t.Errorf("Loss takes %s", name)
		}
		if _, err := m.Gradient(bad, g); err == nil {
			t.Errorf("Gradient takes %s", name)
		}
	}
	if _, err := NewModel(s, theta[1:]); err == nil {
		t.Error("a parameter is missing, and nobody minds")
	}
	for _, bad := range []Shape{
		{}, {1, 1, 1, nil}, {1, 1, 1, []int{0}}, {1, 1, 1, []int{1, 2}}, {1, 1, 1, []int{0, 2, 2}}, {0, 1, 1, []int{0, 2}}, {1 << 20, 1, 1, []int{0, 2}},
		{1, 1, 1, []int{0, 1 << 17}},
	} {
		if _, err := NewModel(bad, nil); err == nil {
			t.Errorf("%+v is fine", bad)
		}
	}
}

// Training finds what there is to find: here the next word is certain.
func TestTraining(t *testing.T) {
	v := &Vocabulary{Words: []string{"a", "b", "c", Unknown}, Counts: []int{30, 30, 30, 1}}
	s := Shape{Context: 1, Width: 4, Hidden: 8, Classes: v.Classes(2)}
	ids := make([]uint16, 90)
	for i := range ids {
		ids[i] = uint16(i % 3)
	}
	theta := s.Start(v, Vectors(v, ids, s.Width, 1), 1)
	m := model(t, s, theta)
	examples := Examples(s, ids)
	if before := loss(t, m, examples) / 89; math.Abs(before-math.Log(3)) > 0.3 {
		t.Errorf("before training the loss is %v, not about that of the frequencies, %v", before, math.Log(3))
	}
	batches, adam := NewBatches(s, examples, 1), &Adam{Rate: 0.05, Steps: 60}
	for range 60 {
		g := make([]float64, len(theta))
		if _, err := m.Gradient(batches.Next(30), g); err != nil {
			t.Fatal(err)
		}
		adam.Step(theta, g)
	}
	if after := loss(t, m, examples) / 89; after > 0.05 {
		t.Errorf("after training the loss is still %v", after)
	}
	w := NewWriter(m, v)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 30 {
		if got := w.Next([]uint16{uint16(i % 3)}, 0.5, random); got != uint16((i+1)%3) {
			t.Errorf("after %s comes %s", v.Words[i%3], v.Words[got])
		}
	}
}

func TestWriterNeverSaysUnknown(t *testing.T) {
	s, theta, _ := tiny(t, 2)
	v := &Vocabulary{Words: []string{"a", "b", Unknown, "d", "e", "f", "g", "h", "i", "j", "k"}, Counts: make([]int, 11)}
	theta[s.layout().wordBias+2] += 10
	w := NewWriter(model(t, s, theta), v)
	draw := func() []uint16 {
		random := rand.New(rand.NewPCG(9, 9))
		var ids []uint16
		for range 500 {
			ids = append(ids, w.Next([]uint16{1, 2}, 1, random))
		}
		return ids
	}
	ids := draw()
	if slices.Contains(ids, 2) {
		t.Error("it says <unk>")
	}
	if !slices.Equal(ids, draw()) {
		t.Error("the same random numbers gave other words")
	}
}

// Each example comes once before any comes again, in the order that the seed stands for.
func TestBatches(t *testing.T) {
	s := Shape{Context: 1, Width: 1, Hidden: 1, Classes: []int{0, 20}}
	var examples []uint16
	for i := range 10 {
		examples = append(examples, uint16(i), uint16(i+10))
	}
	b := NewBatches(s, examples, 4)
	first := append(b.Next(4), b.Next(6)...)
	count := map[uint16]int{}
	for i := 0; i < len(first); i += 2 {
		count[first[i]]++
		if first[i+1] != first[i]+10 {
			t.Errorf("an example was torn: %v", first[i:i+2])
		}
	}
	if len(count) != 10 {
		t.Errorf("got %v", first)
	}
	again := NewBatches(s, examples, 4)
	if got := again.Next(10); !slices.Equal(got, first) {
		t.Errorf("the same seed gives %v and %v", first, got)
	}
	if slices.Equal(again.Next(10), first) {
		t.Error("the second round has the order of the first")
	}
}

func TestBytes(t *testing.T) {
	xs := []float64{0, -1.5, math.Pi, math.SmallestNonzeroFloat64, math.Copysign(0, -1)}
	got := Floats(AppendFloats(nil, xs))
	if Digest(got) != Digest(xs) || Digest(xs) == Digest(xs[1:]) {
		t.Errorf("got %v", got)
	}
	ids := []uint16{0, 1, 65535}
	if got := IDs(AppendIDs([]byte{}, ids)); !slices.Equal(got, ids) {
		t.Errorf("got %v", got)
	}
}
