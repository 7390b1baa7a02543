package lm

import (
	"math"
	"math/rand/v2"
)

// Writer continues texts. One goroutine uses it.
type Writer struct {
	m       *Model
	unknown int
	p       []float64
}

// NewWriter returns a Writer over a model of v's words.
func NewWriter(m *Model, v *Vocabulary) *Writer {
	return &Writer{m: m, unknown: int(v.Encode([]string{Unknown})[0]), p: make([]float64, m.s.Words())}
}

// Next draws the word that follows context, which has the length of the model's. It never draws [Unknown]. A temperature below 1 prefers likely
// words. The same random numbers give the same word.
func (w *Writer) Next(context []uint16, temperature float64, random *rand.Rand) uint16 {
	m := w.m
	m.hide(context)
	m.scores(m.classes, m.l.class, m.l.classBias)
	sum := 0.0
	for c, pc := range m.classes {
		from := m.s.Classes[c]
		for i, p := range m.within(c) {
			p = math.Pow(pc*p, 1/temperature)
			if from+i == w.unknown {
				p = 0
			}
			w.p[from+i] = p
			sum += p
		}
	}
	left := random.Float64() * sum
	last := 0
	for i, p := range w.p {
		if p == 0 {
			continue
		}
		if last = i; left < p {
			break
		}
		left -= p
	}
	return uint16(last)
}
