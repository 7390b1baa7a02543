package lm

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Shape is a model's architecture: the last Context words, each as a vector of Width numbers, side by side; a layer of Hidden units with
// tanh; then a softmax over the classes of words and one over the words of the class (Goodman's factorisation), so that a word costs two
// short sums instead of one over the vocabulary, and probabilities are still exact. After Bengio et al., 2003.
type Shape struct {
	Context int   `json:"context"`
	Width   int   `json:"width"`
	Hidden  int   `json:"hidden"`
	Classes []int `json:"classes"` // bounds of the classes, rising from 0 to the size of the vocabulary
}

// Check returns what is wrong with a shape that came from elsewhere.
func (s Shape) Check() error {
	const most = 1 << 12
	if s.Context < 1 || s.Width < 1 || s.Hidden < 1 || s.Context > most || s.Width > most || s.Hidden > most {
		return fmt.Errorf("a model with a context of %d, a width of %d and %d hidden units", s.Context, s.Width, s.Hidden)
	}
	if len(s.Classes) < 2 || s.Classes[0] != 0 || s.Words() > math.MaxUint16 {
		return fmt.Errorf("a model of %d classes over %v words", len(s.Classes)-1, s.Classes)
	}
	for i := 1; i < len(s.Classes); i++ {
		if s.Classes[i] <= s.Classes[i-1] {
			return fmt.Errorf("class %d of the model is empty", i-1)
		}
	}
	return nil
}

// Words is the size of the vocabulary.
func (s Shape) Words() int { return s.Classes[len(s.Classes)-1] }

// Stride is how many token ids make an example: the context, and the word to be guessed.
func (s Shape) Stride() int { return s.Context + 1 }

// layout is where each matrix lies in the parameters.
type layout struct{ embed, hidden, hiddenBias, class, classBias, word, wordBias, size int }

func (s Shape) layout() layout {
	var l layout
	at := 0
	for _, part := range []struct {
		p *int
		n int
	}{
		{&l.embed, s.Words() * s.Width},
		{&l.hidden, s.Hidden * s.Context * s.Width},
		{&l.hiddenBias, s.Hidden},
		{&l.class, (len(s.Classes) - 1) * s.Hidden},
		{&l.classBias, len(s.Classes) - 1},
		{&l.word, s.Words() * s.Hidden},
		{&l.wordBias, s.Words()},
	} {
		*part.p = at
		at += part.n
	}
	l.size = at
	return l
}

// Size is the number of parameters.
func (s Shape) Size() int { return s.layout().size }

// Start returns the parameters before training: the words' vectors as given (rows of length one, Width wide), biases that know the
// words' frequencies, and small random weights.
func (s Shape) Start(v *Vocabulary, vectors []float64, seed uint64) []float64 {
	l := s.layout()
	theta := make([]float64, l.size)
	random := rand.New(rand.NewPCG(seed, 0x6d6f64656c))
	copy(theta, vectors)
	fill := func(from, n, fan int) {
		scale := 1 / math.Sqrt(float64(fan))
		for i := range n {
			theta[from+i] = (2*random.Float64() - 1) * scale
		}
	}
	fill(l.hidden, l.hiddenBias-l.hidden, s.Context)
	fill(l.class, l.classBias-l.class, s.Hidden*s.Hidden)
	fill(l.word, l.wordBias-l.word, s.Hidden*s.Hidden)
	for c := range len(s.Classes) - 1 {
		sum := 0
		for w := s.Classes[c]; w < s.Classes[c+1]; w++ {
			sum += v.Counts[w]
			theta[l.wordBias+w] = math.Log(float64(v.Counts[w]))
		}
		theta[l.classBias+c] = math.Log(float64(sum))
	}
	return theta
}

// Model computes with parameters that it doesn't change. One goroutine uses it at a time.
type Model struct {
	s     Shape
	l     layout
	theta []float64
	class []int // of each word

	x, h, dh, dx   []float64 // of one example
	classes, words []float64 // probabilities, then errors
}

// NewModel returns a model over theta, which must have the size that s says.
func NewModel(s Shape, theta []float64) (*Model, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	l := s.layout()
	if len(theta) != l.size {
		return nil, fmt.Errorf("%d parameters for a model of %d", len(theta), l.size)
	}
	m := &Model{
		s: s, l: l, theta: theta, class: make([]int, s.Words()),
		x: make([]float64, s.Context*s.Width), dx: make([]float64, s.Context*s.Width),
		h: make([]float64, s.Hidden), dh: make([]float64, s.Hidden),
		classes: make([]float64, len(s.Classes)-1),
	}
	widest := 0
	for c := range len(s.Classes) - 1 {
		widest = max(widest, s.Classes[c+1]-s.Classes[c])
		for w := s.Classes[c]; w < s.Classes[c+1]; w++ {
			m.class[w] = c
		}
	}
	m.words = make([]float64, widest)
	return m, nil
}

// check returns an error for examples that are not a whole number of strides or name words that don't exist.
func (m *Model) check(examples []uint16) error {
	if len(examples)%m.s.Stride() != 0 {
		return fmt.Errorf("%d token ids are no whole number of examples of %d", len(examples), m.s.Stride())
	}
	for _, id := range examples {
		if int(id) >= m.s.Words() {
			return fmt.Errorf("word %d of a vocabulary of %d", id, m.s.Words())
		}
	}
	return nil
}

// Loss returns the sum over examples of -log p(word | context).
func (m *Model) Loss(examples []uint16) (float64, error) {
	if err := m.check(examples); err != nil {
		return 0, err
	}
	sum := 0.0
	for n := m.s.Stride(); len(examples) > 0; examples = examples[n:] {
		sum += m.forward(examples[:n-1], examples[n-1])
	}
	return sum, nil
}

// Gradient adds to g the sum over examples of the gradient of -log p(word | context), and returns the sum of the latter.
func (m *Model) Gradient(examples []uint16, g []float64) (float64, error) {
	if err := m.check(examples); err != nil {
		return 0, err
	}
	sum := 0.0
	for n := m.s.Stride(); len(examples) > 0; examples = examples[n:] {
		context, word := examples[:n-1], examples[n-1]
		sum += m.forward(context, word)
		m.backward(context, word, g)
	}
	return sum, nil
}

// hide computes the hidden layer.
func (m *Model) hide(context []uint16) {
	w := m.s.Width
	for i, id := range context {
		copy(m.x[i*w:(i+1)*w], m.theta[m.l.embed+int(id)*w:])
	}
	n := len(m.x)
	for j := range m.h {
		m.h[j] = math.Tanh(dot(m.theta[m.l.hidden+j*n:m.l.hidden+(j+1)*n], m.x) + m.theta[m.l.hiddenBias+j])
	}
}

// scores puts the probabilities of p's rows into p.
func (m *Model) scores(p []float64, rows, biases int) {
	n := m.s.Hidden
	for i := range p {
		p[i] = dot(m.theta[rows+i*n:rows+(i+1)*n], m.h) + m.theta[biases+i]
	}
	softmax(p)
}

// within puts the probabilities of the words of class c, given that class, into m.words and returns that part of it.
func (m *Model) within(c int) []float64 {
	from, to := m.s.Classes[c], m.s.Classes[c+1]
	p := m.words[:to-from]
	m.scores(p, m.l.word+from*m.s.Hidden, m.l.wordBias+from)
	return p
}

func (m *Model) forward(context []uint16, word uint16) float64 {
	m.hide(context)
	m.scores(m.classes, m.l.class, m.l.classBias)
	c := m.class[word]
	p := m.within(c)
	return -math.Log(m.classes[c]) - math.Log(p[int(word)-m.s.Classes[c]])
}

// backward adds the gradient of the example that forward has just seen.
func (m *Model) backward(context []uint16, word uint16, g []float64) {
	c := m.class[word]
	from := m.s.Classes[c]
	clear(m.dh)
	m.classes[c]--
	m.spread(m.classes, m.l.class, m.l.classBias, g)
	p := m.words[:m.s.Classes[c+1]-from]
	p[int(word)-from]--
	m.spread(p, m.l.word+from*m.s.Hidden, m.l.wordBias+from, g)

	n := len(m.x)
	clear(m.dx)
	for j, h := range m.h {
		d := m.dh[j] * (1 - h*h)
		at := m.l.hidden + j*n
		axpy(g[at:at+n], d, m.x)
		axpy(m.dx, d, m.theta[at:at+n])
		g[m.l.hiddenBias+j] += d
	}
	w := m.s.Width
	for i, id := range context {
		at := m.l.embed + int(id)*w
		axpy(g[at:at+w], 1, m.dx[i*w:(i+1)*w])
	}
}

// spread takes the errors of a softmax to its weights and to the hidden layer.
func (m *Model) spread(errors []float64, rows, biases int, g []float64) {
	n := m.s.Hidden
	for i, d := range errors {
		at := rows + i*n
		axpy(g[at:at+n], d, m.h)
		axpy(m.dh, d, m.theta[at:at+n])
		g[biases+i] += d
	}
}

// dot adds in four strands, always the same: faster than one, and as deterministic.
func dot(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// axpy adds c times x to y.
func axpy(y []float64, c float64, x []float64) {
	x = x[:len(y)]
	i := 0
	for ; i+4 <= len(y); i += 4 {
		y[i] += c * x[i]
		y[i+1] += c * x[i+1]
		y[i+2] += c * x[i+2]
		y[i+3] += c * x[i+3]
	}
	for ; i < len(y); i++ {
		y[i] += c * x[i]
	}
}

func softmax(p []float64) {
	most := p[0]
	for _, x := range p {
		most = max(most, x)
	}
	sum := 0.0
	for i, x := range p {
		p[i] = math.Exp(x - most)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
}
