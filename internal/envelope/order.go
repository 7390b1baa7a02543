package envelope

import (
	"cmp"
	"slices"
	"strings"

	"github.com/stagebus/stagebus"
)

const maxOrder = 32 << 10

func byKey(a, b stagebus.Header) int { return cmp.Compare(a.Key, b.Key) }

// sorted returns hs sorted by name, those of one name in their order, and the list of names as they were; "" if they were sorted or the list
// is too long. hs is not changed.
func sorted(hs []stagebus.Header) ([]stagebus.Header, string) {
	if slices.IsSortedFunc(hs, byKey) {
		return hs, ""
	}
	var b strings.Builder
	for i := range hs {
		if i > 0 {
			b.WriteByte(',')
		}
		_, _ = escaper.WriteString(&b, hs[i].Key) // a Builder takes everything
	}
	out := slices.Clone(hs)
	slices.SortStableFunc(out, byKey)
	if b.Len() > maxOrder {
		return out, ""
	}
	return out, b.String()
}

var (
	escaper   = strings.NewReplacer("%", "%25", ",", "%2C")
	unescaper = strings.NewReplacer("%25", "%", "%2C", ",")
)

// restore puts hs into the order of a list of names. Names that aren't in the list, or more often than in it, follow in sorted order: brokers
// and relays add headers of their own.
func restore(hs []stagebus.Header, list string) []stagebus.Header {
	if !slices.IsSortedFunc(hs, byKey) {
		slices.SortStableFunc(hs, byKey)
	}
	if list == "" || len(hs) < 2 {
		return hs
	}
	next := make(map[string]int, len(hs)) // name -> the first that is not placed
	for i := len(hs) - 1; i >= 0; i-- {
		next[hs[i].Key] = i
	}
	out := make([]stagebus.Header, 0, len(hs))
	placed := make([]bool, len(hs))
	for escaped := range strings.SplitSeq(list, ",") {
		name := unescaper.Replace(escaped)
		i, ok := next[name]
		if !ok || i == len(hs) || hs[i].Key != name {
			continue
		}
		out = append(out, hs[i])
		placed[i] = true
		next[name] = i + 1
	}
	for i := range hs {
		if !placed[i] {
			out = append(out, hs[i])
		}
	}
	return out
}
