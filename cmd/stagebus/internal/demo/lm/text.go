// Package lm is the language model that the demo trains: text to token ids, word vectors, a small neural model with its gradient, and
// sampling. It knows nothing of messages. Everything in it is deterministic: the same input gives the same bits.
package lm

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Paragraphs splits text at blank lines. Lines within a paragraph are joined by a space.
func Paragraphs(text string) []string {
	var ps []string
	var cur []string
	flush := func() {
		if len(cur) > 0 {
			ps = append(ps, strings.Join(cur, " "))
			cur = nil
		}
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			flush()
		} else {
			cur = append(cur, line)
		}
	}
	flush()
	return ps
}

var (
	// aside is what editors of digital texts put between the author's words: [Illustration: …], [Sidenote: …], footnote marks.
	aside = regexp.MustCompile(`\[[^\]]*\]`)
	token = regexp.MustCompile(`\p{L}+(?:'\p{L}+)?|[0-9][0-9.,/]*|[.,;:?!]`)
)

// Number stands for every number.
const Number = "#"

// Normalise lowers the case, drops editorial asides and marks of emphasis, and writes quotes and dashes in one way.
func Normalise(paragraph string) string {
	s := aside.ReplaceAllString(paragraph, " ")
	return strings.Map(func(r rune) rune {
		switch r {
		case '_', '*', '|', '~', '^':
			return -1
		case '‘', '’':
			return '\''
		case '“', '”', '"', '—', '–', '-', '(', ')':
			return ' '
		}
		return unicode.ToLower(r)
	}, s)
}

// Tokens splits a normalised text into words, numbers (all of them "#") and the punctuation that ends clauses. What is neither is dropped.
func Tokens(s string) []string {
	ts := token.FindAllString(s, -1)
	for i, t := range ts {
		if t[0] >= '0' && t[0] <= '9' {
			ts[i] = Number
		}
	}
	return ts
}

// IsWord reports whether a token is a word, as opposed to punctuation, [Number] and [Unknown].
func IsWord(t string) bool {
	r, _ := utf8.DecodeRuneInString(t)
	return unicode.IsLetter(r)
}

// IsMark reports whether a token is punctuation.
func IsMark(t string) bool { return !IsWord(t) && t != Number && t != Unknown }

// stopWords carry grammar, not meaning.
var stopWords = func() map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(`a about above after again against all also am an and any are as at be because been before being
		below between both but by can cannot could did do does doing down during each few for from further had has have having he her
		here hers herself him himself his how i if in into is it its itself let may me more most must my myself no nor not now of off on
		once one only or other others ought our ours out over own same shall she should so some such than that the their them
		themselves then there therefore these they this those though through thus to too two under until up upon very was we were
		what when where whereby wherefore which while who whom whose why will with without would yet you your yours`) {
		set[w] = true
	}
	return set
}()

// IsStopWord reports whether a token says little of what a text is about; punctuation and numbers are stop words too.
func IsStopWord(t string) bool { return !IsWord(t) || stopWords[t] }

// Sentence writes tokens as people do: no space before punctuation, a capital at the start and after a full stop, and in "I". Tokens that stand for several words of the text are shown as "…".
func Sentence(tokens []string) string {
	var b strings.Builder
	capital := true
	for _, t := range tokens {
		if b.Len() > 0 && !IsMark(t) {
			b.WriteByte(' ')
		}
		switch {
		case t == Unknown:
			b.WriteString("…")
		case t == "i":
			b.WriteString("I")
		case capital && IsWord(t):
			r, n := utf8.DecodeRuneInString(t)
			b.WriteString(string(unicode.ToUpper(r)) + t[n:])
		default:
			b.WriteString(t)
		}
		capital = t == "." || t == "?" || t == "!"
	}
	return b.String()
}
