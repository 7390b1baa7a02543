package demo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Text is what the model is trained on.
type Text struct {
	Name string
	Body string
}

// maxText bounds the text, all of which is kept in memory.
const maxText = 16 << 20

// ReadText reads a file.
func ReadText(name string) (Text, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Text{}, err
	}
	if info.Size() > maxText {
		return Text{}, fmt.Errorf("%s has %d bytes, more than %d: give a part of it", name, info.Size(), maxText)
	}
	b, err := os.ReadFile(name)
	return Text{filepath.Base(name), string(b)}, err
}

// FindText returns Isaac Newton's Opticks, which Go's source tree has for its own tests, or where there is no such tree a text that is made
// up, and says so by its name.
func FindText() Text {
	for _, root := range []func() string{runtimeRoot, goEnvRoot} {
		r := root()
		if r == "" {
			continue
		}
		if t, err := ReadText(filepath.Join(r, "src", "testdata", "Isaac.Newton-Opticks.txt")); err == nil {
			t.Name = "Isaac Newton's Opticks"
			return t
		}
	}
	return MadeUp(1)
}

// runtimeRoot is where Go was when the program was built, or GOROOT.
func runtimeRoot() string {
	return runtime.GOROOT() //nolint:staticcheck // it is deprecated for looking up Go's files on another machine; here a miss is fine
}

func goEnvRoot() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// grammar makes sentences: a symbol is replaced by one of its alternatives, until only words are left.
var grammar = map[string][]string{
	"S":  {"NP VP .", "NP VP PP .", "if NP VP , NP VP .", "when NP VP PP , NP VP .", "NP VP , and NP VP PP ."},
	"NP": {"the N", "the A N", "a A N", "every N of the N", "the N and the N"},
	"VP": {"V the N", "V a A N", "I", "I PP", "is A", "is V2 by the N"},
	"PP": {"in the N", "through the A N", "upon the N", "from the N to the N"},
	"N": {
		"ray", "light", "prism", "glass", "colour", "wall", "hole", "window", "lens", "sun", "paper", "water", "air", "eye", "body", "surface",
		"image", "angle", "shadow", "edge", "flame", "cloud", "mirror", "crystal",
	},
	"A": {
		"red", "blue", "green", "yellow", "violet", "white", "dark", "bright", "thin", "thick", "round", "narrow", "distant", "clear", "polished",
		"second",
	},
	"V":  {"meets", "bends", "crosses", "paints", "hides", "covers", "reflects", "divides", "warms", "follows"},
	"V2": {"bent", "crossed", "painted", "hidden", "covered", "reflected", "divided", "warmed", "followed"},
	"I":  {"shines", "fades", "returns", "vanishes", "spreads", "appears", "falls", "turns"},
}

// MadeUp returns a text that a small grammar makes, the same for the same seed.
func MadeUp(seed uint64) Text {
	const paragraphs, sentences = 400, 12
	random := rand.New(rand.NewPCG(seed, 0x6d616465))
	var b strings.Builder
	var expand func(symbol string)
	expand = func(symbol string) {
		alternatives, ok := grammar[symbol]
		if !ok {
			b.WriteString(symbol + " ")
			return
		}
		for s := range strings.FieldsSeq(alternatives[random.IntN(len(alternatives))]) {
			expand(s)
		}
	}
	for range paragraphs {
		for range sentences {
			expand("S")
		}
		b.WriteString("\n\n")
	}
	return Text{"a text made up by a small grammar (Go's source tree, which has Newton's Opticks, is not on this machine)", b.String()}
}
