package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

// Size is how large the model is and how much it is trained.
type Size struct {
	Words, Context, Width, Hidden, Classes int
	Batch                                  int // examples of a step, all workers together
	Steps                                  int
	Rate                                   float64
}

// Sizes are those that have a name.
var Sizes = map[string]Size{
	"small":  {Words: 300, Context: 3, Width: 8, Hidden: 12, Classes: 18, Batch: 512, Steps: 60, Rate: 0.02},
	"medium": {Words: 2000, Context: 3, Width: 20, Hidden: 24, Classes: 45, Batch: 2048, Steps: 150, Rate: 0.015},
}

// evaluations is how often the held-out text is looked at while training, beside the start and the end.
const evaluations = 4

// Progress is what a step of training has reached.
type Progress struct {
	Step       int     `json:"step"`
	Steps      int     `json:"steps"`
	Loss       float64 `json:"loss"`                 // mean of -log p over the step's examples
	Perplexity float64 `json:"perplexity,omitempty"` // of the held-out text; not each time
}

// Trained is what came of training.
type Trained struct {
	Text        string  `json:"text"`
	Paragraphs  int     `json:"paragraphs"`
	Tokens      int     `json:"tokens"`
	HeldOut     int     `json:"held_out"` // tokens of them
	StopWords   float64 `json:"stop_words"`
	Words       int     `json:"vocabulary"`
	Parameters  int     `json:"parameters"`
	Near        []Near  `json:"near"`
	Steps       int     `json:"steps"`
	Batch       int     `json:"batch"`
	LossBefore  float64 `json:"loss_before"`
	LossAfter   float64 `json:"loss_after"`
	Before      float64 `json:"perplexity_before"`
	After       float64 `json:"perplexity_after"`
	Unigram     float64 `json:"perplexity_unigram"`
	LossUnigram float64 `json:"loss_unigram"`
	Difference  float64 `json:"difference"` // of the parameters from those that one worker on whole batches reaches
	Digest      string  `json:"digest"`
	Duplicates  int     `json:"duplicates"` // gradients that came again
	Prompts     int     `json:"prompts"`
	Seconds     float64 `json:"seconds"`
}

// optimiser keeps the parameters. For each step it sends them out, with the examples, and adds what the workers return. Workers keep
// nothing between steps: one that dies takes nothing with it but time.
type optimiser struct {
	s    *stage
	size Size

	join joiner
	data dataset
	held []uint16 // examples

	shape   lm.Shape
	theta   []float64
	model   *lm.Model // over theta
	adam    *lm.Adam
	batches *lm.Batches
	batch   []uint16 // examples of the step
	step    int
	shards  [trainers]shard
	over    bool

	reference <-chan reference
	began     time.Time
	report    Trained
	stop      <-chan struct{} // closed when the stage stops
}

// shard is one worker's part of a step.
type shard struct {
	gradient []float64
	loss     float64
}

func newOptimiser(s *stage) *optimiser { return &optimiser{s: s, size: s.o.Size} }

func (o *optimiser) run(ctx context.Context) error {
	o.stop = ctx.Done()
	err := o.s.serve(ctx, work{reader: readerNamed("optimise"), handle: o.handle, prefetch: 4})
	if o.reference != nil {
		<-o.reference // it ends with o.stop
	}
	return err
}

func (o *optimiser) handle(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	var ms []stagebus.Message
	var err error
	if d.Type == typePrefix+kindDataset {
		ms, err = o.dataset(d)
	} else if err = only(d, kindGradient); err == nil {
		ms, err = o.gradient(d)
	}
	switch {
	case errors.Is(err, errStopped):
		return nil, stagebus.Release
	case err != nil:
		return refuse(err)
	}
	return done(ms...)
}

// errStopped: the stage was stopped while it waited.
var errStopped = errors.New("stopped")

// dataset takes a part of the data set; with the last one, training begins.
func (o *optimiser) dataset(d *stagebus.Delivery) ([]stagebus.Message, error) {
	whole, err := o.join.add(&d.Message)
	if err != nil || whole == nil {
		return nil, err
	}
	if err := json.Unmarshal(whole, &o.data); err != nil {
		return nil, err
	}
	v, vectors := o.data.Vocabulary, lm.Floats(o.data.Vectors)
	train, held := lm.IDs(o.data.Train), lm.IDs(o.data.Held)
	o.shape = lm.Shape{Context: o.size.Context, Width: o.data.Width, Hidden: o.size.Hidden, Classes: v.Classes(o.size.Classes)}
	o.held = lm.Examples(o.shape, held)
	examples := lm.Examples(o.shape, train)
	if len(o.held) == 0 || len(examples) == 0 {
		return nil, o.s.fail(fmt.Errorf("%s is too short: %d tokens to train on, %d held out", o.data.Text, len(train), len(held)))
	}
	o.theta = o.shape.Start(v, vectors, o.s.o.Seed)
	if o.model, err = lm.NewModel(o.shape, o.theta); err != nil {
		return nil, o.s.fail(err)
	}
	o.adam = &lm.Adam{Rate: o.size.Rate, Steps: o.size.Steps}
	o.batches = lm.NewBatches(o.shape, examples, o.s.o.Seed)
	o.began = time.Now()
	o.reference = o.trainAlone(append([]float64{}, o.theta...), examples)

	before, err := o.evaluate()
	if err != nil {
		return nil, err
	}
	unigram := v.Unigram(held[o.shape.Context:])
	o.report = Trained{
		Text: o.data.Text, Paragraphs: o.data.Paragraphs, Tokens: len(train) + len(held), HeldOut: len(held),
		StopWords: float64(o.data.Stop) / float64(len(train)+len(held)),
		Words:     len(v.Words), Parameters: len(o.theta), Near: neighbours(v, vectors), Steps: o.size.Steps, Batch: o.size.Batch,
		LossBefore: math.Log(before), Before: before, Unigram: unigram, LossUnigram: math.Log(unigram),
	}
	return []stagebus.Message{
		o.s.json(topicProgress, kindProgress, Progress{Steps: o.size.Steps, Loss: math.Log(before), Perplexity: before}),
		o.parameters(),
	}, nil
}

// Near is a word, and words that keep the same company.
type Near struct {
	Word string   `json:"word"`
	Like []string `json:"like"`
}

// neighbours shows what word vectors know, for the most frequent content words.
func neighbours(v *lm.Vocabulary, vectors []float64) []Near {
	const words, like = 5, 4
	var near []Near
	for i, w := range v.Words {
		if len(near) < words && !lm.IsStopWord(w) {
			near = append(near, Near{w, lm.Nearest(v, vectors, uint16(i), like)})
		}
	}
	return near
}

// parameters is the message that has workers compute a step: the parameters, and each worker's examples behind them.
func (o *optimiser) parameters() stagebus.Message {
	o.batch = o.batches.Next(o.size.Batch)
	m := o.s.message(topicParameters, kindParameters, headerStep, o.step, headerShape, string(encode(o.shape)))
	m.ContentType = "application/octet-stream"
	m.Body = lm.AppendIDs(lm.AppendFloats(make([]byte, 0, 8*len(o.theta)+2*len(o.batch)), o.theta), o.batch)
	return m
}

// evaluate returns the perplexity of the held-out text.
func (o *optimiser) evaluate() (float64, error) {
	loss, err := o.model.Loss(o.held)
	return math.Exp(loss / float64(len(o.held)/o.shape.Stride())), err
}
