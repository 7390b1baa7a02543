package lm

import (
	"cmp"
	"errors"
	"math"
	"slices"
)

// Unknown stands for all words that are too rare for the vocabulary.
const Unknown = "<unk>"

// Vocabulary numbers the most frequent tokens of a text, the most frequent first. The words that were too rare count as [Unknown],
// which has its place by frequency like any other.
type Vocabulary struct {
	Words  []string `json:"words"`
	Counts []int    `json:"counts"` // in the text that it was made from

	ids map[string]uint16
}

// NewVocabulary counts the tokens of a text and keeps at most size of them, those that occur at least twice. Equal counts are ordered
// by the token, so that the order in which paragraphs are given doesn't matter.
func NewVocabulary(paragraphs [][]string, size int) (*Vocabulary, error) {
	counts := map[string]int{}
	total := 0
	for _, p := range paragraphs {
		for _, t := range p {
			counts[t]++
			total++
		}
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	slices.SortFunc(words, func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	const rare = 2
	kept, sum := 0, 0
	for kept < min(size-1, len(words), math.MaxUint16) && counts[words[kept]] >= rare {
		sum += counts[words[kept]]
		kept++
	}
	if kept < 2 {
		return nil, errors.New("too little text: no two words occur twice")
	}
	words = words[:kept]
	unknown := max(total-sum, 1)
	at, _ := slices.BinarySearchFunc(words, unknown, func(w string, n int) int { return n - counts[w] })
	v := &Vocabulary{Words: slices.Insert(words, at, Unknown)}
	counts[Unknown] = unknown
	for _, w := range v.Words {
		v.Counts = append(v.Counts, counts[w])
	}
	v.index()
	return v, nil
}

func (v *Vocabulary) index() {
	v.ids = make(map[string]uint16, len(v.Words))
	for i, w := range v.Words {
		v.ids[w] = uint16(i)
	}
}

// Encode replaces tokens by their numbers.
func (v *Vocabulary) Encode(tokens []string) []uint16 {
	if v.ids == nil { // it was decoded
		v.index()
	}
	ids := make([]uint16, len(tokens))
	for i, t := range tokens {
		id, ok := v.ids[t]
		if !ok {
			id = v.ids[Unknown]
		}
		ids[i] = id
	}
	return ids
}

// Decode is the reverse of Encode.
func (v *Vocabulary) Decode(ids []uint16) []string {
	ts := make([]string, len(ids))
	for i, id := range ids {
		ts[i] = v.Words[id]
	}
	return ts
}

// Unigram is the perplexity of a held-out text under the frequencies of the vocabulary, each raised by one: the best guess for who
// knows nothing of a word's neighbours.
func (v *Vocabulary) Unigram(ids []uint16) float64 {
	total := len(v.Counts)
	for _, n := range v.Counts {
		total += n
	}
	sum := 0.0
	for _, id := range ids {
		sum -= math.Log(float64(v.Counts[id]+1) / float64(total))
	}
	return math.Exp(sum / float64(len(ids)))
}

// Classes divides the vocabulary into about n ranges of equal weight, by the square root of frequency, for the model's output: it
// chooses a class first and then a word of it. The result are n+1 bounds, from 0 to the size of the vocabulary.
func (v *Vocabulary) Classes(n int) []int {
	total := 0.0
	for _, c := range v.Counts {
		total += math.Sqrt(float64(c))
	}
	bounds := []int{0}
	sum := 0.0
	for i, c := range v.Counts {
		sum += math.Sqrt(float64(c))
		if sum >= total*float64(len(bounds))/float64(n) || i == len(v.Counts)-1 {
			bounds = append(bounds, i+1)
		}
	}
	return bounds
}
