package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

const (
	temperature = 0.6
	minTokens   = 8 // of an answer, before a full stop ends it
	maxTokens   = 28
)

// MaxPrompts is how many prompts there may be, and MaxPrompt how many bytes each may have.
const (
	MaxPrompts = 1 << 10
	MaxPrompt  = 1 << 12 // see MaxPrompts
)

// infer is an inference worker: it waits for the model, says which one it got, and answers prompts. The parts of the model are settled at
// the end only: a worker that starts again gets them again, also on brokers that can't replay.
func (s *stage) infer(ctx context.Context) error {
	c, err := s.consume(ctx, readerNamed(s.name), maxParts)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("%s: %w", s.name, err)
	}
	var tokens []stagebus.Token
	w, err := s.load(ctx, c, &tokens)
	if err == nil && w != nil {
		err = s.serve(ctx, work{reader: readerNamed("infer"), prefetch: 1, handle: w.answer})
	}
	over, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if errors.Is(context.Cause(ctx), errEnd) {
		err = errors.Join(err, c.Settle(over, stagebus.Done, tokens...))
	} else {
		err = errors.Join(err, c.Settle(over, stagebus.Release, tokens...))
	}
	return errors.Join(err, c.Close(over))
}

// load receives a model. It returns nil, and no error, when ctx ends before it is all there.
func (s *stage) load(ctx context.Context, c stagebus.Consumer, tokens *[]stagebus.Token) (*answerer, error) {
	var j joiner
	dst := make([]stagebus.Delivery, 16)
	for {
		n, err := c.Receive(ctx, dst)
		for i := range dst[:n] { // also of what is behind the end: it may have come twice
			*tokens = append(*tokens, dst[i].Token)
		}
		for i := range dst[:n] {
			d := &dst[i]
			if err := only(d, kindModel); err != nil {
				return nil, fmt.Errorf("%s: topic %q: %w", s.name, d.Topic, err)
			}
			whole, err := j.add(&d.Message)
			if err != nil {
				return nil, fmt.Errorf("%s: topic %q: %w", s.name, d.Topic, err)
			}
			if whole == nil {
				continue
			}
			w, digest, err := s.newAnswerer(whole)
			if err != nil {
				return nil, fmt.Errorf("%s: topic %q: %w", s.name, d.Topic, err)
			}
			return w, s.send(ctx, s.json(topicReports, kindReport, Report{Stage: s.name, Deployed: &Deployed{Worker: s.name, Digest: digest}}))
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, nil
		default:
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
}

// Deployed says which parameters an inference worker uses.
type Deployed struct {
	Worker string `json:"worker"`
	Digest string `json:"digest"` // SHA-256 of the parameters as they came
}

// answerer writes answers with a model.
type answerer struct {
	s          *stage
	vocabulary *lm.Vocabulary
	context    int
	seed       uint64
	writer     *lm.Writer
}

func (s *stage) newAnswerer(data []byte) (*answerer, string, error) {
	var b bundle
	theta, err := b.parse(data)
	if err != nil {
		return nil, "", err
	}
	m, err := lm.NewModel(b.Shape, theta)
	if err != nil {
		return nil, "", err
	}
	return &answerer{s, b.Vocabulary, b.Shape.Context, b.Seed, lm.NewWriter(m, b.Vocabulary)}, lm.Digest(theta), nil
}

// answer sends a message for each token as it is drawn, and one for the end. The prompt is settled when all of them are durable. A prompt
// that comes again gets the same answer again, from whichever worker.
func (w *answerer) answer(ctx context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	if err := only(d, kindPrompt); err != nil {
		return refuse(err)
	}
	var q Prompt
	if err := json.Unmarshal(d.Body, &q); err != nil {
		return refuse(err)
	}
	if q.ID < 0 || q.ID >= MaxPrompts {
		return refuse(fmt.Errorf("prompt %d is not one of 0 to %d", q.ID, MaxPrompts-1))
	}
	key := []byte(fmt.Sprint(q.ID))
	var open sync.WaitGroup
	var failed counter
	random := rand.New(rand.NewPCG(w.seed, uint64(q.ID)))
	stop := w.vocabulary.Encode([]string{"."})[0]
	history := w.history(q.Text)
	n := 0
	for n < maxTokens {
		id := w.writer.Next(history[len(history)-w.context:], temperature, random)
		history = append(history, id)
		m := w.s.message(topicTokens, kindToken, headerPart, n)
		m.Key, m.ContentType, m.CorrelationID, m.Body = key, "text/plain", d.ID, []byte(w.vocabulary.Words[id])
		n++
		open.Add(1)
		stream := []stagebus.Message{m}
		stagebus.Stamp(stream)
		err := w.s.p.Submit(ctx, stream, func(os []stagebus.Outcome) {
			if os[0].Err != nil {
				failed.add(1)
			}
			open.Done()
		})
		if err != nil {
			failed.add(1)
			open.Done()
			break
		}
		if id == stop && n >= minTokens {
			break
		}
	}
	open.Wait()
	if failed.get() > 0 {
		return nil, stagebus.Retry(retryPause) // all of it once more: who reads tells the tokens apart by their number
	}
	end := w.s.json(topicTokens, kindToken, streamEnd{q, w.s.name}, headerEnd, true, headerPart, n)
	end.Key, end.CorrelationID = key, d.ID
	return done(end)
}

// history is what comes before the answer: the prompt, after enough full stops for the model's context.
func (w *answerer) history(prompt string) []uint16 {
	var tokens []string
	for range w.context {
		tokens = append(tokens, ".")
	}
	return w.vocabulary.Encode(append(tokens, lm.Tokens(lm.Normalise(prompt))...))
}

// streamEnd is the body of the message that ends an answer.
type streamEnd struct {
	Prompt Prompt `json:"prompt"`
	Worker string `json:"worker"`
}
