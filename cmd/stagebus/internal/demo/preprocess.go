package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

// paragraphSize is where paragraphs are broken that no writer would have made so long.
const paragraphSize = 4 << 10

// heldOut is the share of paragraphs that nobody is trained on, one of so many.
const heldOut = 10

// headerParagraph and headerParagraphs number what was one text.
const (
	headerParagraph  = "paragraph"
	headerParagraphs = "paragraphs"
	maxParagraphs    = 1 << 20
)

// preprocess is the first stage: it reads the text, makes it fit for training, hands out the steps of training and adds up what comes
// back. Its four parts meet through topics too.
func (s *stage) preprocess(ctx context.Context) error {
	e := &encoder{s: s}
	opt := newOptimiser(s)
	return all(ctx,
		func(ctx context.Context) error {
			return s.serve(ctx, work{reader: readerNamed("normalise"), handle: s.normalise, workers: 2, prefetch: 64})
		},
		func(ctx context.Context) error {
			return s.serve(ctx, work{reader: readerNamed("encode"), handle: e.handle, prefetch: 256})
		},
		func(ctx context.Context) error {
			return opt.run(ctx)
		},
		s.read,
	)
}

// read sends the text, a message for each paragraph.
func (s *stage) read(ctx context.Context) error {
	ps := breakUp(lm.Paragraphs(s.o.Text.Body))
	if len(ps) > maxParagraphs {
		return fmt.Errorf("%s has %d paragraphs, more than %d: give a part of it", s.o.Text.Name, len(ps), maxParagraphs)
	}
	if len(ps) < 2*heldOut {
		return fmt.Errorf("%s has %d paragraphs, %d are needed: one of %d is held out", s.o.Text.Name, len(ps), 2*heldOut, heldOut)
	}
	const batch = 256
	for from := 0; from < len(ps); from += batch {
		var ms []stagebus.Message
		for i := from; i < min(from+batch, len(ps)); i++ {
			m := s.message(topicText, kindParagraph, headerParagraph, i, headerParagraphs, len(ps))
			m.ContentType, m.Body = "text/plain", []byte(ps[i])
			ms = append(ms, m)
		}
		if err := s.send(ctx, ms...); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	return nil
}

// breakUp cuts paragraphs that are too long, at a space if there is one.
func breakUp(ps []string) []string {
	var out []string
	for _, p := range ps {
		for len(p) > paragraphSize {
			at := strings.LastIndexByte(p[:paragraphSize], ' ')
			if at <= 0 {
				at = paragraphSize
			}
			out = append(out, p[:at])
			p = strings.TrimSpace(p[at:])
		}
		out = append(out, p)
	}
	return out
}

// normalise turns a paragraph into tokens. It keeps nothing: any number of workers may do it.
func (s *stage) normalise(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	if err := only(d, kindParagraph); err != nil {
		return refuse(err)
	}
	m := s.message(topicSentences, kindSentence)
	m.Headers = append(m.Headers, d.Headers...)
	m.ContentType = "text/plain"
	m.Body = []byte(strings.Join(lm.Tokens(lm.Normalise(string(d.Body))), " "))
	return done(m)
}

// dataset is what training needs of a text.
type dataset struct {
	Text       string         `json:"text"` // its name
	Paragraphs int            `json:"paragraphs"`
	Stop       int            `json:"stop"` // tokens that are stop words
	Vocabulary *lm.Vocabulary `json:"vocabulary"`
	Train      []byte         `json:"train"` // token ids
	Held       []byte         `json:"held"`
	Width      int            `json:"width"`
	Vectors    []byte         `json:"vectors"`
}

// encoder waits for all of a text, since a vocabulary is made from all of it.
type encoder struct {
	s          *stage
	paragraphs [][]string
	n          int
	done       bool
}

func (e *encoder) handle(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	if err := only(d, kindSentence); err != nil {
		return refuse(err)
	}
	total, err := number(&d.Message, headerParagraphs, maxParagraphs+1)
	if err != nil {
		return refuse(err)
	}
	i, err := number(&d.Message, headerParagraph, total)
	if err != nil {
		return refuse(err)
	}
	if e.paragraphs == nil {
		e.paragraphs = make([][]string, total)
	}
	if len(e.paragraphs) != total {
		return refuse(errors.New("a paragraph of another text"))
	}
	if e.done || e.paragraphs[i] != nil {
		e.s.duplicates.add(1)
		return done()
	}
	e.paragraphs[i] = append([]string{}, strings.Fields(string(d.Body))...)
	if e.n++; e.n < total {
		return done()
	}
	e.done = true
	whole, err := e.encode()
	if err != nil {
		_ = e.s.fail(err)
		return nil, stagebus.Release
	}
	return done(e.s.split(topicDataset, kindDataset, whole)...)
}

// encode makes the data set of all paragraphs.
func (e *encoder) encode() ([]byte, error) {
	var train, held [][]string
	stop := 0
	for i, p := range e.paragraphs {
		if i%heldOut == heldOut-1 {
			held = append(held, p)
		} else {
			train = append(train, p)
		}
		for _, t := range p {
			if lm.IsStopWord(t) {
				stop++
			}
		}
	}
	v, err := lm.NewVocabulary(train, e.s.o.Size.Words)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.s.o.Text.Name, err)
	}
	ids := func(ps [][]string) []uint16 {
		var ids []uint16
		for _, p := range ps {
			ids = append(ids, v.Encode(p)...)
		}
		return ids
	}
	trainIDs := ids(train)
	return encode(dataset{
		Text: e.s.o.Text.Name, Paragraphs: len(e.paragraphs), Stop: stop, Vocabulary: v,
		Train: lm.AppendIDs(nil, trainIDs), Held: lm.AppendIDs(nil, ids(held)),
		Width: e.s.o.Size.Width, Vectors: lm.AppendFloats(nil, lm.Vectors(v, trainIDs, e.s.o.Size.Width, e.s.o.Seed)),
	}), nil
}
