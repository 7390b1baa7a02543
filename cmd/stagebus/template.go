package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/internal/nearest"
)

// view is what a template sees.
type view struct {
	Topic                                                                                     string
	Partition                                                                                 int32
	Offset                                                                                    int64
	Key, Body                                                                                 string
	Headers                                                                                   stagebus.Headers
	Time                                                                                      time.Time
	ID, Source, Type, Subject, ContentType, ContentEncoding, CorrelationID, ReplyTo, Audience string
	Deadline                                                                                  time.Time
	Priority                                                                                  uint8
	Attempt                                                                                   int
	Redelivered                                                                               bool
	Error                                                                                     string
}

func newView(d *stagebus.Delivery) *view {
	v := &view{
		Topic: d.Topic, Partition: d.Position.Partition, Offset: d.Position.Offset, Key: string(d.Key), Body: string(d.Body),
		Headers: d.Headers, Time: d.Time, ID: d.ID, Source: d.Source, Type: d.Type, Subject: d.Subject, ContentType: d.ContentType,
		ContentEncoding: d.ContentEncoding, CorrelationID: d.CorrelationID, ReplyTo: d.ReplyTo, Audience: d.Audience,
		Deadline: d.Deadline, Priority: d.Priority, Attempt: d.Attempt, Redelivered: d.Redelivered,
	}
	if d.Err != nil {
		v.Error = d.Err.Error()
	}
	return v
}

func templated(text string) (formatter, error) {
	var current *view // for the header function; templates run one after the other
	t, err := template.New("--template").Funcs(template.FuncMap{
		"header": func(name string) string { v, _ := current.Headers.Get(name); return v },
		"base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
	}).Parse(text)
	if err == nil {
		err = unknownFields(t.Root, true)
	}
	if err == nil {
		// What is wrong with the arguments of functions is found when a template runs: better before the first message than at it. One that
		// wants headers, such as {{index .Headers 0}}, gets some.
		current = &view{}
		if err = t.Execute(io.Discard, current); err != nil {
			current = &view{Headers: make(stagebus.Headers, 64), Key: "key", Body: strings.Repeat("body", 1024)}
			if t.Execute(io.Discard, current) == nil {
				err = nil
			}
		}
	}
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	return func(b *bytes.Buffer, d *stagebus.Delivery) error {
		current = newView(d)
		err := t.Execute(b, current)
		b.WriteByte('\n')
		if err != nil {
			return &templateError{strings.TrimPrefix(err.Error(), "template: ")}
		}
		return nil
	}, nil
}

// templateError is of a template that doesn't fit a message.
type templateError struct{ reason string }

func (e *templateError) Error() string { return e.reason }

// unknownFields finds the first field that a message doesn't have, which text/template would tell in terms of Go. dot: "." is the message
// there, and not what range and with have made of it; "$" always is.
func unknownFields(node parse.Node, dot bool) error {
	check := func(nodes ...parse.Node) error {
		for _, n := range nodes {
			if err := unknownFields(n, dot); err != nil {
				return err
			}
		}
		return nil
	}
	branch := func(b *parse.BranchNode, inner bool) error {
		err := check(b.Pipe)
		if err == nil && b.List != nil {
			err = unknownFields(b.List, inner)
		}
		if err == nil && b.ElseList != nil {
			err = check(b.ElseList)
		}
		return err
	}
	switch n := node.(type) {
	case *parse.ListNode:
		return check(n.Nodes...)
	case *parse.ActionNode:
		return check(n.Pipe)
	case *parse.IfNode:
		return branch(&n.BranchNode, dot)
	case *parse.RangeNode:
		return branch(&n.BranchNode, false)
	case *parse.WithNode:
		return branch(&n.BranchNode, false)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			if err := check(c.Args...); err != nil {
				return err
			}
		}
	case *parse.FieldNode:
		if dot {
			return checkField(n.Ident[0])
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			return checkField(n.Ident[1])
		}
	}
	return nil
}

func checkField(name string) error {
	var known []string
	for t, i := reflect.TypeFor[view](), 0; i < t.NumField(); i++ {
		known = append(known, t.Field(i).Name)
	}
	if slices.Contains(known, name) {
		return nil
	}
	if near := nearest.Of(name, known); near != "" {
		return fmt.Errorf("--template: a message has no field .%s; did you mean .%s?", name, near)
	}
	return fmt.Errorf("--template: a message has no field .%s; the fields are %s", name, strings.Join(known, ", "))
}
