package demo

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/stagebus/stagebus"
)

// The kinds of messages: Message.Type is "stagebus.demo." and one of them.
const (
	kindParagraph  = "paragraph"
	kindSentence   = "sentence"
	kindDataset    = "dataset"
	kindParameters = "parameters"
	kindGradient   = "gradient"
	kindModel      = "model"
	kindPrompt     = "prompt"
	kindToken      = "token"
	kindAnswer     = "answer"
	kindProgress   = "progress"
	kindReport     = "report"
	kindEnd        = "end"
)

const typePrefix = "stagebus.demo."

// The headers. What is repeated (at-least-once) has the same ones, by which receivers tell.
const (
	headerStep  = "step"
	headerShard = "shard"
	headerLoss  = "loss"
	headerShape = "shape"
	headerPart  = "part"   // from 0
	headerParts = "parts"  // how many there are
	headerSum   = "sha256" // of all parts together
	headerEnd   = "end"    // the last of a stream, with the number of tokens before it as its part
)

// message makes a message of a stage, without a body. The headers are names and values in turn.
func (s *stage) message(topic, kind string, headers ...any) stagebus.Message {
	m := stagebus.Message{Topic: s.o.topic(topic), Type: typePrefix + kind, Source: "/demo/" + s.name}
	for i := 0; i < len(headers); i += 2 {
		m.Headers = append(m.Headers, stagebus.Header{Key: headers[i].(string), Value: fmt.Sprint(headers[i+1])})
	}
	return m
}

// json makes a message whose body is v.
func (s *stage) json(topic, kind string, v any, headers ...any) stagebus.Message {
	m := s.message(topic, kind, headers...)
	m.ContentType = "application/json"
	m.Body = encode(v)
	return m
}

// encode is for our own types, of which all have a form in JSON.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// number reads a header that is a number from 0 to limit-1.
func number(m *stagebus.Message, header string, limit int) (int, error) {
	s, _ := m.Headers.Get(header)
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n >= limit {
		return 0, fmt.Errorf("header %q is %q, not a number from 0 to %d", header, s, limit-1)
	}
	return n, nil
}

// only reports whether d is of that kind and could be read.
func only(d *stagebus.Delivery, kind string) error {
	if d.Err != nil {
		return d.Err
	}
	if d.Type != typePrefix+kind {
		return fmt.Errorf("a message of type %q, not %q", d.Type, typePrefix+kind)
	}
	return nil
}

// refuse puts a message aside that nobody can read, now or later.
func refuse(err error) ([]stagebus.Message, stagebus.Verdict) {
	return nil, stagebus.Reject(err.Error())
}

// done settles, with what came of it.
func done(ms ...stagebus.Message) ([]stagebus.Message, stagebus.Verdict) {
	stagebus.Stamp(ms)
	return ms, stagebus.Done
}
