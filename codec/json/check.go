package json

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

const maxDepth = 1000

var (
	errUTF8      = errors.New("a string that is not UTF-8")
	errSurrogate = errors.New("half a surrogate pair: no character")
	errDepth     = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errDuplicate = errors.New("the object has this name twice")
)

// check finds what encoding/json lets pass: duplicate names, text that isn't UTF-8, lone surrogates, and depth that costs. It doesn't check the
// grammar, which encoding/json does after it: where it can't make sense of src it returns no error.
func check(src []byte) (at int, err error) {
	c := checker{text: string(src)} // names are substrings of it
	for i := 0; i < len(c.text); i++ {
		switch c.text[i] {
		case '{', '[':
			if len(c.open) == maxDepth {
				return i, errDepth
			}
			c.open = append(c.open, level{object: c.text[i] == '{', name: true, first: len(c.names)})
		case '}', ']':
			if len(c.open) == 0 {
				return 0, nil
			}
			c.names = c.names[:c.top().first]
			c.open = c.open[:len(c.open)-1]
		case ',':
			if len(c.open) > 0 {
				c.top().name = true
			}
		case '"':
			end, err := c.string(i)
			if err != nil {
				return end, err
			}
			if end < 0 {
				return 0, nil
			}
			if len(c.open) > 0 && c.top().object && c.top().name {
				if !c.add(c.text[i : end+1]) {
					return i, errDuplicate
				}
				c.top().name = false
			}
			i = end
		}
	}
	return 0, nil
}

type checker struct {
	text  string
	open  []level
	names []string // those of all open objects, each level's from first on
}

type level struct {
	object bool
	name   bool // the next string of an object is a name
	first  int
	seen   map[string]struct{} // once there are too many names to compare with each
}

const few = 16

func (c *checker) top() *level { return &c.open[len(c.open)-1] }

// add notes a name of the innermost object, or returns false if it is there.
func (c *checker) add(quoted string) bool {
	name := quoted[1 : len(quoted)-1]
	for i := range len(name) {
		if name[i] == '\\' { // "\u0061" is "a"
			var plain string
			if stdjson.Unmarshal([]byte(quoted), &plain) != nil {
				return true // a bad escape, for encoding/json to say
			}
			name = plain
			break
		}
	}
	l := c.top()
	if l.seen == nil {
		for _, n := range c.names[l.first:] {
			if n == name {
				return false
			}
		}
		c.names = append(c.names, name)
		if len(c.names)-l.first > few {
			l.seen = make(map[string]struct{}, 2*few)
			for _, n := range c.names[l.first:] {
				l.seen[n] = struct{}{}
			}
		}
		return true
	}
	before := len(l.seen)
	l.seen[name] = struct{}{}
	return len(l.seen) > before
}

// string returns where the string that starts at i ends, -1 if it doesn't, or where it is wrong.
func (c *checker) string(i int) (int, error) {
	s := c.text
	for i++; i < len(s); {
		switch b := s[i]; {
		case b == '"':
			return i, nil
		case b == '\\':
			n, err := escape(s[i:])
			if err != nil {
				return i, err
			}
			i += n
		case b < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				return i, errUTF8
			}
			i += n
		}
	}
	return -1, nil
}

// escape returns the length of the escape, or of the pair of escapes, at the start of s. A malformed one is for encoding/json.
func escape(s string) (int, error) {
	r, ok := hex4(s)
	switch {
	case !ok || r < 0xd800 || r > 0xdfff:
		return 2, nil // the four digits are characters like others
	case r > 0xdbff:
		return 0, errSurrogate
	}
	if low, ok := hex4(s[6:]); !ok || low < 0xdc00 || low > 0xdfff {
		return 0, errSurrogate
	}
	return 12, nil
}

// hex4 reads \uXXXX at the start of s.
func hex4(s string) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	for i := 2; i < 6; i++ {
		c := s[i] | 0x20
		switch {
		case '0' <= s[i] && s[i] <= '9':
			r = r<<4 | rune(s[i]-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
