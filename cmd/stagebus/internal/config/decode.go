package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/stagebus/stagebus/internal/nearest"
)

// SyntaxError is a place in a file and what is wrong there. Its text has one line.
type SyntaxError struct {
	File         string
	Line, Column int // from 1; 0: not known
	Reason       string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Reason
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Reason)
}

// comments are kept from reading to writing, by the path of the node that they belong to.
type comments yaml.CommentMap

func (c comments) remove(context string) {
	path := pathOf(context).String()
	for p := range c {
		if p == path || strings.HasPrefix(p, path+".") {
			delete(c, p)
		}
	}
}

// pathOf returns the path of a context, or of one of its fields.
func pathOf(names ...string) *yaml.Path {
	b := (&yaml.PathBuilder{}).Root().Child("contexts")
	for _, n := range names {
		b = b.Child(n)
	}
	return b.Build()
}

// decode reads config.yaml and checks every context.
func decode(file string, b []byte, f *File) error {
	if err := strict(file, b, f, yaml.CommentToMap(yaml.CommentMap(f.comments))); err != nil {
		return err
	}
	if f.Contexts == nil { // "contexts:" and nothing below
		f.Contexts = map[string]Context{}
	}
	for _, n := range f.Names() {
		c := f.Contexts[n]
		field, err := "", CheckName(n)
		if err == nil {
			if field, err = c.Check(); err != nil {
				err = fmt.Errorf("context %q: %w", n, err)
			}
		}
		if err != nil {
			e := &SyntaxError{File: file, Reason: err.Error()}
			e.Line, e.Column = position(b, n, field)
			return e
		}
	}
	return nil
}

// position finds the value of a context's field, or the name of the context if it has no such field.
func position(b []byte, context, field string) (line, column int) {
	tree, err := parser.ParseBytes(b, 0)
	if err != nil {
		return 0, 0
	}
	if node, err := pathOf(context, field).FilterFile(tree); err == nil && node != nil {
		at := node.GetToken().Position
		return at.Line, at.Column
	}
	all, err := pathOf().FilterFile(tree)
	if m, ok := all.(*ast.MappingNode); err == nil && ok {
		for _, v := range m.Values {
			if t := v.Key.GetToken(); t.Value == context {
				return t.Position.Line, t.Position.Column
			}
		}
	}
	return 0, 0
}

// strict decodes b into v, which refuses unknown and repeated keys, and says where and what in words that fit a file.
func strict(file string, b []byte, v any, options ...yaml.DecodeOption) error {
	err := yaml.UnmarshalWithOptions(b, v, append(options, yaml.Strict())...)
	if err == nil {
		return nil
	}
	e := &SyntaxError{File: file, Reason: err.Error()}
	var known yaml.Error
	if !errors.As(err, &known) {
		return e
	}
	e.Reason = known.GetMessage()
	word := ""
	if t := known.GetToken(); t != nil {
		e.Line, e.Column, word = t.Position.Line, t.Position.Column, t.Value
	}
	var unknown *yaml.UnknownFieldError
	var mismatch *yaml.TypeError
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &unknown):
		e.Reason = unknownKey(word, keys(v, e.Column == 1))
	case errors.As(err, &mismatch):
		e.Reason = "a text is expected here"
	case errors.As(err, &syntax):
		e.Reason = "not YAML: " + e.Reason
	}
	return e
}

func unknownKey(key string, known []string) string {
	if near := nearest.Of(key, known); near != "" && near != key {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, near)
	}
	return fmt.Sprintf("unknown key %q; known here: %s", key, strings.Join(known, ", "))
}

// keys returns the YAML names of v's fields, or of a context's below the top.
func keys(v any, top bool) []string {
	t := reflect.TypeOf(v).Elem()
	if _, ok := v.(*File); ok && !top {
		t = reflect.TypeFor[Context]()
	}
	var names []string
	for i := range t.NumField() {
		if n, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); n != "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}
