package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

// float reads a header that is a finite number.
func float(m *stagebus.Message, header string) (float64, error) {
	s, _ := m.Headers.Get(header)
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("header %q is %q, not a number", header, s)
	}
	return x, nil
}

// train is a training worker: it computes the gradient of its shard of each step. The message has all that it needs, so that a worker can
// be killed at any moment and started again: what it had not settled comes again.
func (s *stage) train(ctx context.Context, shard int, a *accident) error {
	return s.serve(ctx, work{reader: readerNamed(s.name), prefetch: 1, wrap: a.consumer, handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
		if err := only(d, kindParameters); err != nil {
			return refuse(err)
		}
		m, err := s.gradient(d, shard)
		if err != nil {
			return refuse(err)
		}
		if a.before(&d.Message) {
			return nil, stagebus.Release // nobody hears it
		}
		return done(m)
	}})
}

// gradient computes the gradient of one shard of a step.
func (s *stage) gradient(d *stagebus.Delivery, shard int) (stagebus.Message, error) {
	step, err := number(&d.Message, headerStep, math.MaxInt32)
	if err != nil {
		return stagebus.Message{}, err
	}
	var shape lm.Shape
	text, _ := d.Headers.Get(headerShape)
	if err := json.Unmarshal([]byte(text), &shape); err != nil {
		return stagebus.Message{}, fmt.Errorf("header %q: %w", headerShape, err)
	}
	if err := shape.Check(); err != nil {
		return stagebus.Message{}, err
	}
	size := 8 * shape.Size()
	if len(d.Body) < size {
		return stagebus.Message{}, fmt.Errorf("%d bytes for %d parameters", len(d.Body), shape.Size())
	}
	model, err := lm.NewModel(shape, lm.Floats(d.Body[:size]))
	if err != nil {
		return stagebus.Message{}, err
	}
	examples := share(lm.IDs(d.Body[size:]), shape.Stride(), shard)
	g := make([]float64, shape.Size())
	loss, err := model.Gradient(examples, g)
	if err != nil {
		return stagebus.Message{}, err
	}
	m := s.message(topicGradients, kindGradient, headerStep, step, headerShard, shard, headerLoss, strconv.FormatFloat(loss, 'g', -1, 64))
	m.ContentType = "application/octet-stream"
	m.Body = lm.AppendFloats(make([]byte, 0, size), g)
	return m, nil
}

// share is one worker's part of the examples of a step.
func share(examples []uint16, stride, shard int) []uint16 {
	n := len(examples) / stride
	return examples[n*shard/trainers*stride : n*(shard+1)/trainers*stride]
}
