package lm

import (
	"math"
	"math/rand/v2"
	"slices"
)

const (
	reach  = 4    // words on either side that count as neighbours
	smooth = 0.75 // exponent of neighbours' frequencies: without it rare words are everybody's best friends
	rounds = 12   // of subspace iteration
)

// pair is how much oftener than by chance a word meets a neighbour.
type pair struct {
	word, near int
	pmi        float64
}

// Vectors says in width numbers what company each word keeps: the positive pointwise mutual information of all pairs of neighbours, reduced
// to its width strongest directions by subspace iteration. Stop words are nobody's company: everybody has theirs. Rows have the
// length one, or zero for words that meet nobody.
func Vectors(v *Vocabulary, ids []uint16, width int, seed uint64) []float64 {
	pairs := company(v, ids)
	n := len(v.Words)
	random := rand.New(rand.NewPCG(seed, 0x766563746f7273))
	q, y := make([]float64, n*width), make([]float64, n*width)
	for i := range q {
		q[i] = random.NormFloat64()
	}
	for range rounds {
		orthonormalise(q, width)
		clear(y)
		for _, p := range pairs {
			axpy(y[p.word*width:(p.word+1)*width], p.pmi, q[p.near*width:(p.near+1)*width])
		}
		clear(q)
		for _, p := range pairs {
			axpy(q[p.near*width:(p.near+1)*width], p.pmi, y[p.word*width:(p.word+1)*width])
		}
	}
	for i := range n {
		normalise(y[i*width : (i+1)*width])
	}
	return y
}

// company counts who meets whom. The result is sorted: sums of floats depend on their order, and that of a map is random.
func company(v *Vocabulary, ids []uint16) []pair {
	n := len(v.Words)
	content := make([]bool, n)
	for i, w := range v.Words {
		content[i] = !IsStopWord(w)
	}
	counts := map[uint32]float64{}
	row, column := make([]float64, n), make([]float64, n)
	total := 0.0
	for i, word := range ids {
		for j := max(0, i-reach); j < min(len(ids), i+reach+1); j++ {
			if near := ids[j]; j != i && content[near] {
				counts[uint32(word)<<16|uint32(near)]++
				row[word]++
				column[near]++
			}
		}
	}
	for i := range column {
		column[i] = math.Pow(column[i], smooth)
		total += column[i]
	}
	keys := make([]uint32, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var pairs []pair
	for _, k := range keys {
		word, near := int(k>>16), int(k&0xffff)
		if pmi := math.Log(counts[k] * total / (row[word] * column[near])); pmi > 0 {
			pairs = append(pairs, pair{word, near, pmi})
		}
	}
	return pairs
}

// orthonormalise makes the columns of q, a matrix with rows of width numbers, orthogonal and of length one (Gram and Schmidt).
func orthonormalise(q []float64, width int) {
	for j := range width {
		for k := range j {
			sum := 0.0
			for i := 0; i < len(q); i += width {
				sum += q[i+j] * q[i+k]
			}
			for i := 0; i < len(q); i += width {
				q[i+j] -= sum * q[i+k]
			}
		}
		sum := 0.0
		for i := j; i < len(q); i += width {
			sum += q[i] * q[i]
		}
		if sum == 0 {
			continue // a text of so few words has fewer directions
		}
		scale := 1 / math.Sqrt(sum)
		for i := j; i < len(q); i += width {
			q[i] *= scale
		}
	}
}

func normalise(x []float64) {
	length := math.Sqrt(dot(x, x))
	if length == 0 {
		return
	}
	for i := range x {
		x[i] /= length
	}
}

// Nearest returns the n words whose vectors are most like that of word, without stop words.
func Nearest(v *Vocabulary, vectors []float64, word uint16, n int) []string {
	width := len(vectors) / len(v.Words)
	at := func(i int) []float64 { return vectors[i*width : (i+1)*width] }
	type match struct {
		id     int
		cosine float64
	}
	var ms []match
	for i, w := range v.Words {
		if i != int(word) && !IsStopWord(w) {
			ms = append(ms, match{i, dot(at(int(word)), at(i))})
		}
	}
	slices.SortStableFunc(ms, func(a, b match) int {
		switch {
		case a.cosine > b.cosine:
			return -1
		case a.cosine < b.cosine:
			return 1
		}
		return 0
	})
	words := make([]string, 0, n)
	for _, m := range ms[:min(n, len(ms))] {
		words = append(words, v.Words[m.id])
	}
	return words
}
