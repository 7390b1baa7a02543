package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/demo/lm"
)

// retryPause is how long something waits that failed for the broker's sake.
const retryPause = 500 * time.Millisecond

// Answer is a prompt and what was written after it, fit to be read.
type Answer struct {
	Prompt
	Answer string `json:"answer"`
	Tokens int    `json:"tokens"`
	Worker string `json:"worker"`
}

// postprocess is the last stage: it puts streams of tokens together, makes sentences of them, and collects what there is to show. When
// all is there, it tells the others that this is the end.
func (s *stage) postprocess(ctx context.Context, c *collector) error {
	w := &scribe{s: s, streams: map[string]*stream{}}
	defer c.last(s)
	return all(ctx,
		func(ctx context.Context) error {
			return s.serve(ctx, work{reader: readerNamed("write"), handle: w.handle, prefetch: 64})
		},
		func(ctx context.Context) error {
			return s.serve(ctx, work{reader: readerNamed("collect"), handle: c.handle, prefetch: 16})
		},
		func(ctx context.Context) error { return c.end(ctx, s) },
	)
}

// stream is an answer in the making.
type stream struct {
	tokens  map[int]string
	end     *streamEnd
	length  int // tokens, once the end is known
	written bool
}

// scribe puts the tokens of answers in order. Tokens may come in any order and more than once.
type scribe struct {
	s       *stage
	streams map[string]*stream
}

func (w *scribe) handle(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	if err := only(d, kindToken); err != nil {
		return refuse(err)
	}
	part, err := number(&d.Message, headerPart, maxTokens+1)
	if err != nil {
		return refuse(err)
	}
	id, err := strconv.Atoi(string(d.Key))
	if err != nil || id < 0 || id >= MaxPrompts {
		return refuse(fmt.Errorf("the key %.20q is no number of a prompt", d.Key))
	}
	st := w.streams[string(d.Key)]
	if st == nil {
		st = &stream{tokens: map[int]string{}}
		w.streams[string(d.Key)] = st
	}
	again, err := st.add(&d.Message, part)
	if err != nil {
		return refuse(err)
	}
	if again {
		w.s.duplicates.add(1)
	}
	if !st.whole() || st.written {
		return done()
	}
	st.written = true
	return done(w.s.json(topicAnswers, kindAnswer, st.answer()))
}

// add takes a token or the end, and says whether it was there already.
func (st *stream) add(m *stagebus.Message, part int) (again bool, err error) {
	if _, end := m.Headers.Get(headerEnd); end {
		if st.end != nil {
			if st.length != part {
				return false, fmt.Errorf("a second end after %d tokens, the first was after %d", part, st.length)
			}
			return true, nil
		}
		var e streamEnd
		if err := json.Unmarshal(m.Body, &e); err != nil {
			return false, err
		}
		st.end, st.length = &e, part
		return false, nil
	}
	if old, ok := st.tokens[part]; ok {
		if old != string(m.Body) {
			return false, fmt.Errorf("token %d is %.40q and was %.40q before", part, m.Body, old)
		}
		return true, nil
	}
	st.tokens[part] = string(m.Body)
	return false, nil
}

// whole reports whether the end and all tokens before it have come.
func (st *stream) whole() bool {
	if st.end == nil || len(st.tokens) != st.length {
		return false
	}
	for i := range st.length {
		if _, ok := st.tokens[i]; !ok {
			return false
		}
	}
	return true
}

// answer writes the tokens as people do, without what a small model stammers.
func (st *stream) answer() Answer {
	tokens := strings.Fields(strings.Join(lm.Tokens(lm.Normalise(st.end.Prompt.Text)), " "))
	n := len(tokens)
	for i := range st.length {
		t := st.tokens[i]
		if last := len(tokens) - 1; last >= n-1 && last >= 0 && (tokens[last] == t || lm.IsMark(tokens[last]) && lm.IsMark(t)) {
			continue // the same word twice, or two marks
		}
		tokens = append(tokens, t)
	}
	text := lm.Sentence(tokens)
	if len(tokens) > 0 && !lm.IsMark(tokens[len(tokens)-1]) {
		text += " …" // it was cut off
	}
	return Answer{st.end.Prompt, text, st.length, st.end.Worker}
}
