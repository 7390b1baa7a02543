package demo

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

// gradient takes a worker's part of a step. With the last one of the step the parameters change, and the next step, or the end, goes out.
func (o *optimiser) gradient(d *stagebus.Delivery) ([]stagebus.Message, error) {
	step, err := number(&d.Message, headerStep, o.size.Steps)
	if err != nil {
		return nil, err
	}
	k, err := number(&d.Message, headerShard, trainers)
	if err != nil {
		return nil, err
	}
	if o.over || step != o.step || o.shards[k].gradient != nil {
		// A worker that was killed before it had settled: it did the work again, and the same bits came out.
		o.s.duplicates.add(1)
		return nil, nil
	}
	g := lm.Floats(d.Body)
	if len(g) != len(o.theta) {
		return nil, fmt.Errorf("a gradient of %d numbers for %d parameters", len(g), len(o.theta))
	}
	loss, err := float(&d.Message, headerLoss)
	if err != nil {
		return nil, err
	}
	o.shards[k] = shard{g, loss}
	if slices.ContainsFunc(o.shards[:], func(s shard) bool { return s.gradient == nil }) {
		return nil, nil
	}
	return o.next()
}

// next changes the parameters by the gradients of all shards, added in the order of the shards, whichever came first.
func (o *optimiser) next() ([]stagebus.Message, error) {
	sum, loss := o.shards[0].gradient, o.shards[0].loss
	for _, s := range o.shards[1:] {
		for i, x := range s.gradient {
			sum[i] += x
		}
		loss += s.loss
	}
	clear(o.shards[:])
	advance(o.adam, o.theta, sum, o.size.Batch)
	o.step++
	p := Progress{Step: o.step, Steps: o.size.Steps, Loss: loss / float64(o.size.Batch)}
	if o.step == o.size.Steps {
		return o.finish(p)
	}
	var err error
	if o.step%max(1, o.size.Steps/(evaluations+1)) == 0 {
		p.Perplexity, err = o.evaluate()
	}
	return []stagebus.Message{o.parameters(), o.s.json(topicProgress, kindProgress, p)}, err
}

// advance is one step of the optimiser with the sum of n examples' gradients, which it changes.
func advance(a *lm.Adam, theta, sum []float64, n int) {
	for i := range sum {
		sum[i] /= float64(n)
	}
	a.Step(theta, sum)
}

// reference is what one worker alone comes to.
type reference struct {
	theta []float64
	err   error
}

// trainAlone does all of the training once more, as one worker that is given whole batches would, in this process and without a message:
// what the workers reach together is compared with it.
func (o *optimiser) trainAlone(theta []float64, examples []uint16) <-chan reference {
	result := make(chan reference, 1)
	shape, size, seed := o.shape, o.size, o.s.o.Seed
	go func() { // optimiser.run waits for it
		defer close(result)
		m, err := lm.NewModel(shape, theta)
		if err != nil {
			result <- reference{err: err}
			return
		}
		batches, adam, g := lm.NewBatches(shape, examples, seed), &lm.Adam{Rate: size.Rate, Steps: size.Steps}, make([]float64, len(theta))
		for range size.Steps {
			select {
			case <-o.stop:
				return
			default:
			}
			clear(g)
			if _, err := m.Gradient(batches.Next(size.Batch), g); err != nil {
				result <- reference{err: err}
				return
			}
			advance(adam, theta, g, size.Batch)
		}
		result <- reference{theta: theta}
	}()
	return result
}

// finish says what training has come to, deploys the parameters and asks the prompts.
func (o *optimiser) finish(p Progress) ([]stagebus.Message, error) {
	o.over = true
	r := &o.report
	r.Seconds = time.Since(o.began).Seconds()
	after, err := o.evaluate()
	if err != nil {
		return nil, err
	}
	alone, ok := <-o.reference
	if !ok {
		return nil, errStopped
	}
	if alone.err != nil {
		return nil, alone.err
	}
	p.Perplexity = after
	r.After, r.LossAfter = after, math.Log(after)
	r.Difference = lm.Difference(o.theta, alone.theta)
	r.Digest = lm.Digest(o.theta)
	r.Duplicates = o.s.duplicates.get()
	prompts := o.prompts()
	r.Prompts = len(prompts)

	ms := o.s.split(topicDeployment, kindModel, bundle{o.shape, o.data.Vocabulary, o.s.o.Seed}.append(o.theta))
	ms = append(ms, o.s.json(topicProgress, kindProgress, p), o.s.json(topicReports, kindReport, Report{Stage: o.s.name, Trained: r}))
	for _, q := range prompts {
		m := o.s.json(topicPrompts, kindPrompt, q)
		m.Key = []byte(fmt.Sprint(q.ID))
		ms = append(ms, m)
	}
	return ms, nil
}

// Prompt is the beginning of a text to be written.
type Prompt struct {
	ID   int    `json:"id"`
	Text string `json:"text"`
}

const (
	promptCount = 6
	promptWords = 5
)

// prompts are the user's, or beginnings of held-out paragraphs that use known words only.
func (o *optimiser) prompts() []Prompt {
	texts := o.s.o.Prompts
	if len(texts) == 0 {
		texts = beginnings(o.data.Vocabulary.Decode(lm.IDs(o.data.Held)))
	}
	var ps []Prompt
	for i, t := range texts {
		ps = append(ps, Prompt{i, t})
	}
	return ps
}

// beginnings picks beginnings of sentences, spread over the text.
func beginnings(tokens []string) []string {
	var found []string
	for i := 0; i+promptWords+1 < len(tokens); i++ {
		if i > 0 && tokens[i-1] != "." {
			continue
		}
		words := tokens[i : i+promptWords]
		if !slices.ContainsFunc(words, func(t string) bool { return !lm.IsWord(t) }) && slices.ContainsFunc(words, func(t string) bool { return !lm.IsStopWord(t) }) {
			found = append(found, strings.Join(words, " "))
		}
	}
	if len(found) == 0 { // a text without full stops
		return []string{strings.Join(tokens[:min(promptWords, len(tokens))], " ")}
	}
	var out []string
	n := min(promptCount, len(found))
	for i := range n {
		out = append(out, found[i*len(found)/n])
	}
	return out
}

// bundle is a model to be deployed: a line of JSON, and the parameters behind it.
type bundle struct {
	Shape      lm.Shape       `json:"shape"`
	Vocabulary *lm.Vocabulary `json:"vocabulary"`
	Seed       uint64         `json:"seed"`
}

func (b bundle) append(theta []float64) []byte {
	return lm.AppendFloats(append(encode(b), '\n'), theta)
}

// parse is the reverse of append.
func (b *bundle) parse(data []byte) (theta []float64, err error) {
	head, rest, ok := strings.Cut(string(data), "\n")
	if !ok {
		return nil, fmt.Errorf("a model without parameters")
	}
	if err := json.Unmarshal([]byte(head), b); err != nil {
		return nil, err
	}
	if b.Vocabulary == nil || len(b.Vocabulary.Words) != b.Shape.Words() {
		return nil, fmt.Errorf("a model whose vocabulary has another size than its parameters")
	}
	return lm.Floats([]byte(rest)), nil
}
