package lm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
)

// Adam is the optimiser of Kingma and Ba, 2015, with a rate that falls to a tenth along half a cosine.
type Adam struct {
	Rate  float64
	Steps int // over which the rate falls

	step int
	m, v []float64
}

// Step changes theta by the mean gradient g.
func (a *Adam) Step(theta, g []float64) {
	const (
		b1, b2  = 0.9, 0.99
		epsilon = 1e-8
		floor   = 0.1
	)
	if a.m == nil {
		a.m, a.v = make([]float64, len(theta)), make([]float64, len(theta))
	}
	done := min(float64(a.step)/float64(max(a.Steps, 1)), 1)
	a.step++
	rate := a.Rate * (floor + (1-floor)*(1+math.Cos(math.Pi*done))/2)
	c1, c2 := 1-math.Pow(b1, float64(a.step)), 1-math.Pow(b2, float64(a.step))
	for i, d := range g {
		a.m[i] = b1*a.m[i] + (1-b1)*d
		a.v[i] = b2*a.v[i] + (1-b2)*d*d
		theta[i] -= rate * (a.m[i] / c1) / (math.Sqrt(a.v[i]/c2) + epsilon)
	}
}

// Examples slides a window over a text: context, word, context, word…
func Examples(s Shape, ids []uint16) []uint16 {
	n := len(ids) - s.Context
	if n <= 0 {
		return nil
	}
	out := make([]uint16, 0, n*s.Stride())
	for i := range n {
		out = append(out, ids[i:i+s.Stride()]...)
	}
	return out
}

// Batches deals out examples in a random order, each once before any comes again. One goroutine uses it.
type Batches struct {
	s        Shape
	examples []uint16
	order    []int
	next     int
	random   *rand.Rand
}

// NewBatches returns the batches of examples that a seed stands for.
func NewBatches(s Shape, examples []uint16, seed uint64) *Batches {
	b := &Batches{s: s, examples: examples, random: rand.New(rand.NewPCG(seed, 0x62617463686573)), order: make([]int, len(examples)/s.Stride())}
	for i := range b.order {
		b.order[i] = i
	}
	b.next = len(b.order)
	return b
}

// Next returns n examples.
func (b *Batches) Next(n int) []uint16 {
	k := b.s.Stride()
	out := make([]uint16, 0, n*k)
	for range n {
		if b.next == len(b.order) {
			b.random.Shuffle(len(b.order), func(i, j int) { b.order[i], b.order[j] = b.order[j], b.order[i] })
			b.next = 0
		}
		at := b.order[b.next] * k
		b.next++
		out = append(out, b.examples[at:at+k]...)
	}
	return out
}

// AppendFloats appends xs, 8 bytes each, little endian.
func AppendFloats(dst []byte, xs []float64) []byte {
	for _, x := range xs {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
	}
	return dst
}

// Floats is the reverse of AppendFloats. Bytes beyond the last whole number are left out.
func Floats(src []byte) []float64 {
	xs := make([]float64, len(src)/8)
	for i := range xs {
		xs[i] = math.Float64frombits(binary.LittleEndian.Uint64(src[i*8:]))
	}
	return xs
}

// AppendIDs appends token ids, 2 bytes each, little endian.
func AppendIDs(dst []byte, ids []uint16) []byte {
	for _, id := range ids {
		dst = binary.LittleEndian.AppendUint16(dst, id)
	}
	return dst
}

// IDs is the reverse of AppendIDs.
func IDs(src []byte) []uint16 {
	ids := make([]uint16, len(src)/2)
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint16(src[i*2:])
	}
	return ids
}

// Digest identifies parameters: SHA-256 of their bytes, in hexadecimal.
func Digest(theta []float64) string {
	sum := sha256.Sum256(AppendFloats(nil, theta))
	return hex.EncodeToString(sum[:])
}

// Difference is the largest distance between two numbers at the same place.
func Difference(a, b []float64) float64 {
	most := 0.0
	for i := range a {
		most = max(most, math.Abs(a[i]-b[i]))
	}
	return most
}
