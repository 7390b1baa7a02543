package lm

import (
	"slices"
	"strings"
	"testing"
)

func TestParagraphs(t *testing.T) {
	got := Paragraphs("\n\n  A first\nline. \r\n\n \n\nA second.\nB\n\n")
	if want := []string{"A first line.", "A second. B"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := Paragraphs(" \n\n"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestTokens(t *testing.T) {
	for in, want := range map[string]string{
		"_By the_ RAYS of Light":              "by the rays of light",
		"ting'd, and disturb’d":               "ting'd , and disturb'd",
		"[Illustration: FIG. 3.] It is so.":   "it is so .",
		"about 1/4 of 12.5 Inches":            "about # of # inches",
		"Sun-beams (whose “Parts”) — well;":   "sun beams whose parts well ;",
		"§ 5 Ὀπτικός ££ été":                  "# ὀπτικός été",
		"the Rays A*B | E~":                   "the rays ab e",
		"":                                    "",
		"What? No! Yes: [Greek: ph]and so on": "what ? no ! yes : and so on",
	} {
		if got := strings.Join(Tokens(Normalise(in)), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestStopWords(t *testing.T) {
	for token, want := range map[string]bool{"the": true, "which": true, ",": true, Number: true, Unknown: true, "light": false, "colours": false} {
		if IsStopWord(token) != want {
			t.Errorf("%q: got %v", token, !want)
		}
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{
		"the rays , as i said , are red . so is <unk> .": "The rays, as I said, are red. So is ….",
		"why ? because # is odd":                         "Why? Because # is odd",
		"été .":                                          "Été.",
		"":                                               "",
	} {
		if got := Sentence(strings.Fields(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestVocabulary(t *testing.T) {
	text := [][]string{strings.Fields("b a b c a b"), strings.Fields("c d e f a b")}
	v, err := NewVocabulary(text, 4)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(v.Counts, func(a, b int) int { return b - a }) || v.Words[0] != "b" || len(v.Words) != 4 {
		t.Errorf("got %v %v", v.Words, v.Counts)
	}
	sum := 0
	for _, n := range v.Counts {
		sum += n
	}
	if sum != 12 {
		t.Errorf("counts %v are not all of the text", v.Counts)
	}
	decoded := &Vocabulary{Words: v.Words, Counts: v.Counts}
	got := decoded.Decode(decoded.Encode(strings.Fields("a d b nobody")))
	if want := []string{"a", Unknown, "b", Unknown}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	slices.Reverse(text)
	other, err := NewVocabulary(text, 4)
	if err != nil || !slices.Equal(other.Words, v.Words) {
		t.Errorf("another order of paragraphs gives %v, not %v (%v)", other.Words, v.Words, err)
	}
	if _, err := NewVocabulary([][]string{{"a", "b"}}, 10); err == nil {
		t.Error("a text without any word twice is enough")
	}
}

func TestUnigram(t *testing.T) {
	v := &Vocabulary{Words: []string{"a", "b"}, Counts: []int{2, 2}}
	if got := v.Unigram([]uint16{0, 1, 0}); got < 1.999 || got > 2.001 {
		t.Errorf("two words, equally frequent, have perplexity %v", got)
	}
}

func TestClasses(t *testing.T) {
	v := &Vocabulary{}
	for i := range 100 {
		v.Words, v.Counts = append(v.Words, string(rune('a'+i))), append(v.Counts, 1000/(i+1))
	}
	for _, n := range []int{1, 7, 100, 500} {
		s := Shape{Context: 1, Width: 1, Hidden: 1, Classes: v.Classes(n)}
		if err := s.Check(); err != nil || s.Words() != 100 {
			t.Errorf("%d: %v, %v", n, s.Classes, err)
		}
	}
}

// Words that keep the same company are near, others are not; and it is the same each time, though it is counted in maps.
func TestVectors(t *testing.T) {
	var text []string
	for range 40 {
		for _, sentence := range []string{"cats chase mice", "dogs chase mice", "ships cross oceans", "boats cross oceans"} {
			text = append(text, strings.Fields(sentence+" . . . . .")...) // out of reach of the next
		}
	}
	v, err := NewVocabulary([][]string{text}, 100)
	if err != nil {
		t.Fatal(err)
	}
	ids := v.Encode(text)
	vectors := Vectors(v, ids, 4, 1)
	for word, want := range map[string]string{"cats": "dogs", "boats": "ships"} {
		if got := Nearest(v, vectors, v.Encode([]string{word})[0], 3); !slices.Contains(got, want) {
			t.Errorf("near %s are %q, without %s", word, got, want)
		}
	}
	for range 3 {
		if !slices.Equal(Vectors(v, ids, 4, 1), vectors) {
			t.Fatal("the same text gave other vectors")
		}
	}
}
