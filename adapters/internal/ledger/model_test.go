package ledger // inside, since the fuzzer follows only code that is instantiated in the package under test

import (
	"math/rand/v2"
	"testing"
)

// model is the ledger written as its contract reads, without a ring and without care for speed.
type model struct {
	entries []modelEntry
	mark    int64
	moved   bool
	sealed  bool
}

type modelEntry struct {
	mark   int64
	bytes  int
	state  string // "open", "claimed", "settled", "gone"
	issued int    // how often it was reissued
}

// prefix takes the marks of all that is settled up to the first entry that isn't.
func (m *model) prefix() {
	for _, e := range m.entries {
		switch e.state {
		case "open", "claimed":
			return
		case "settled":
			if e.mark > m.mark {
				m.mark, m.moved = e.mark, true
			}
		}
	}
}

func (m *model) open() (n int, bytes int64) {
	if m.sealed {
		return 0, 0
	}
	for _, e := range m.entries {
		if e.state == "open" || e.state == "claimed" {
			n++
			bytes += int64(e.bytes)
		}
	}
	return n, bytes
}

// token is one that the ledger gave, with the model's entry and how often that had been reissued.
type token struct {
	seq    int64
	entry  int
	issued int
}

func (m *model) live(tk token, states ...string) *modelEntry {
	e := &m.entries[tk.entry]
	if m.sealed || e.issued != tk.issued {
		return nil
	}
	for _, s := range states {
		if e.state == s {
			return e
		}
	}
	return nil
}

// run carries out a script on both and compares every answer.
func run(t *testing.T, script []byte) {
	l := New[int]()
	m := &model{}
	var tokens []token
	next := int64(1)
	for i := 0; i+1 < len(script); i += 2 {
		op, arg := script[i]%16, int(script[i+1])
		var tk token
		if len(tokens) > 0 {
			tk = tokens[(len(tokens)-1)*arg/255] // any age
		} else if op >= 6 && op < 15 {
			continue
		}
		switch op {
		case 0, 1, 2, 3:
			seq, ok := l.Add(next, arg, len(m.entries))
			if ok == m.sealed {
				t.Fatalf("step %d: Add %v", i, ok)
			}
			if ok {
				tokens = append(tokens, token{seq: seq, entry: len(m.entries)})
				m.entries = append(m.entries, modelEntry{mark: next, bytes: arg, state: "open"})
				next += int64(arg%3 + 1)
			}
		case 4:
			l.Advance(next)
			if !m.sealed {
				m.entries = append(m.entries, modelEntry{mark: next, state: "settled"})
				next++
			}
		case 5:
			if arg == 0 { // rarely
				n, _ := m.open()
				if got := l.Seal(); got != n {
					t.Fatalf("step %d: sealed %d, want %d", i, got, n)
				}
				m.sealed = true
			}
		case 6, 7, 8, 9:
			e := m.live(tk, "open", "claimed")
			if got := l.Settle(tk.seq); got != (e != nil) {
				t.Fatalf("step %d: Settle %v", i, got)
			}
			if e != nil {
				e.state = "settled"
			}
		case 10:
			e := m.live(tk, "open", "claimed")
			if got := l.Drop(tk.seq); got != (e != nil) {
				t.Fatalf("step %d: Drop %v", i, got)
			}
			if e != nil {
				e.state = "gone"
			}
		case 11:
			e := m.live(tk, "open")
			v, ok := l.Claim(tk.seq)
			if ok != (e != nil) || ok && v != tk.entry {
				t.Fatalf("step %d: Claim %v, %v", i, v, ok)
			}
			if ok {
				e.state = "claimed"
			}
		case 12:
			l.Unclaim(tk.seq)
			if e := m.live(tk, "claimed"); e != nil {
				e.state = "open"
			}
		case 13:
			e := m.live(tk, "open")
			v, seq, ok := l.Reissue(tk.seq)
			if ok != (e != nil) || ok && v != tk.entry {
				t.Fatalf("step %d: Reissue %v, %v", i, v, ok)
			}
			if ok {
				e.issued++
				tokens = append(tokens, token{seq, tk.entry, e.issued})
			}
		case 14:
			if l.Settle(tk.seq + int64(arg+1)<<40) {
				t.Fatalf("step %d: a token that was never given", i)
			}
		case 15:
			idle := false
			select {
			case <-l.Idle():
				idle = true
			default:
			}
			if n, _ := m.open(); idle != (n == 0) {
				t.Fatalf("step %d: idle %v with %d open", i, idle, n)
			}
		}
		if !m.sealed {
			m.prefix()
		}
		if mark, moved := l.Mark(); mark != m.mark || moved != m.moved {
			t.Fatalf("step %d, op %d: Mark %d, %v, want %d, %v", i, op, mark, moved, m.mark, m.moved)
		}
		m.moved = false
		n, bytes := m.open()
		if gn, gb, _ := l.Open(); gn != n || gb != bytes {
			t.Fatalf("step %d, op %d: Open %d, %d, want %d, %d", i, op, gn, gb, n, bytes)
		}
	}
}

func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		script := make([]byte, 1000)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		run(t, script)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte("\x00\x05\x00\x05\x06\xff\x06\x00"))
	f.Add([]byte("\x00\x01\x04\x00\x0a\x00\x0d\xff\x05\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 4000 { // the model is quadratic
			run(t, script)
		}
	})
}
