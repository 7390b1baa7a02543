package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
)

func TestProgressLine(t *testing.T) {
	at := func(seconds int, messages, part, total int64, bytes bool) sample {
		return sample{time.Unix(int64(seconds), 0), advance{messages, part, total, bytes}}
	}
	for _, c := range []struct {
		name    string
		samples []sample
		columns int
		want    string
	}{
		{"no end known", []sample{at(0, 0, 0, 0, false), at(2, 5000, 5000, 0, false)}, 80, "/ consumed 5,000  2,500/s"},
		{"messages", []sample{at(0, 0, 0, 10_000, false), at(2, 5000, 5000, 10_000, false)}, 80, "[==========          ]  50%  consumed 5,000 of 10,000  2,500/s  0:02 left"},
		{"bytes", []sample{at(0, 0, 0, 10<<20, true), at(10, 1000, 1<<20, 10<<20, true)}, 80, "[==                  ]  10%  consumed 1,000  100/s  1:30 left  102.4 KiB/s  1.0 MiB of 10.0 MiB"[:79]},
		{"nothing yet", []sample{at(0, 0, 0, 100, false), at(1, 0, 0, 100, false)}, 80, "[                    ]   0%  consumed 0 of 100  0/s"},
		{"hours", []sample{at(0, 0, 0, 7200, false), at(1, 1, 1, 7200, false)}, 80, "[                    ]   0%  consumed 1 of 7,200  1/s  1:59:59 left"},
		{"more than there was", []sample{at(0, 0, 0, 10, false), at(1, 20, 20, 10, false)}, 80, "[====================] 100%  consumed 20 of 10  20/s  0:00 left"},
		{"rate of late", []sample{at(5, 100, 100, 0, false), at(6, 110, 110, 0, false)}, 80, "/ consumed 110  10/s"},
		{"narrow", []sample{at(0, 0, 0, 100, false), at(1, 0, 0, 100, false)}, 10, "[        "},
		{"no width", []sample{at(0, 0, 0, 100, false), at(1, 0, 0, 100, false)}, 0, ""},
	} {
		if got := progressLine("consumed", 1, c.samples, c.columns); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for bytes, want := range map[float64]string{0: "0 B", 999: "999 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 5 << 30: "5.0 GiB", 3 << 40: "3.0 TiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%v: got %s, want %s", bytes, got, want)
		}
	}
}

// A status is below all that is written: it gives way, and comes back.
func TestStatus(t *testing.T) {
	var b strings.Builder
	w := &syncWriter{w: &b}
	write := func(s string) {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	w.status("")
	write("before\n")
	w.status("half")
	write("event\n")
	w.status("more")
	w.status("")
	write("after\n")
	if got, want := b.String(), "before\n\r\x1b[Khalf\r\x1b[Kevent\nhalf\r\x1b[Kmore\r\x1b[Kafter\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Nothing is drawn in the first second, then five times a second, and nothing is left at the end.
func TestProgressInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := newBuffer()
		var n atomic.Int64
		p := &program{streams: streams{err: &syncWriter{w: errs}}, progress: always}
		stop := p.showProgress("published", true, func() advance { return advance{messages: n.Load()} })
		<-time.After(progressAfter - time.Millisecond)
		synctest.Wait()
		if errs.String() != "" {
			t.Errorf("drawn too early: %q", errs)
		}
		n.Store(1000)
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		p.say("an event")
		<-time.After(progressEvery)
		stop()
		want := "\r\x1b[K| published 1,000  1,000/s" + "\r\x1b[Kstagebus: an event\n| published 1,000  1,000/s" + "\r\x1b[K/ published 1,000  833/s" + "\r\x1b[K"
		if errs.String() != want {
			t.Errorf("got  %q\nwant %q", errs, want)
		}
	})
}

func TestProgressOnlyWhereItFits(t *testing.T) {
	for name, p := range map[string]*program{
		"no terminal": {progress: auto},
		"never":       {progress: never},
		"quiet":       {progress: always, quiet: true},
	} {
		errs := newBuffer()
		p.streams = streams{err: &syncWriter{w: errs}, getenv: func(string) string { return "" }}
		p.showProgress("published", true, func() advance {
			t.Errorf("%s: somebody looks", name)
			return advance{}
		})()
		if errs.String() != "" {
			t.Errorf("%s: %q", name, errs)
		}
	}
}

// Files have a size, and so has what is left of one that is standard input.
func TestInputProgress(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, f := range []string{a, b} {
		if err := os.WriteFile(f, []byte("12345678\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drain := func(in input) {
		for {
			if _, err := in.next(); err != nil {
				return
			}
		}
	}
	in := newFiles([]string{a, b}, 100, false)
	if _, err := in.next(); err != nil {
		t.Fatal(err)
	}
	if read, total := in.progress(); read != 9 || total != 18 {
		t.Errorf("%d of %d", read, total)
	}
	for name, in := range map[string]input{"lines of files": newFiles([]string{a, b}, 1, true), "whole files": newFiles([]string{a, b}, 100, false)} {
		drain(in)
		if read, total := in.progress(); read == 0 || total != 18 {
			t.Errorf("%s: %d of %d", name, read, total)
		}
	}
	if _, total := newFiles([]string{a, dir}, 100, false).progress(); total != 0 {
		t.Errorf("a directory has %d bytes", total)
	}
	file, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	if _, err := file.Seek(4, 0); err != nil {
		t.Fatal(err)
	}
	stdin := newLines("", file, 100, false)
	drain(stdin)
	if read, total := stdin.progress(); read != 5 || total != 5 {
		t.Errorf("%d of %d", read, total)
	}
	if _, total := newLines("", strings.NewReader("x"), 100, false).progress(); total != 0 {
		t.Errorf("a pipe has %d bytes", total)
	}
}

func TestExpected(t *testing.T) {
	info := stagebus.TopicInfo{
		Partitions: []stagebus.PartitionInfo{{ID: 0, First: 10, Next: 30}, {ID: 1, First: 5, Next: 5}},
		Groups:     []stagebus.GroupInfo{{Name: "g", Depth: 7}},
	}
	for _, c := range []struct {
		name string
		o    stagebus.ConsumerOptions
		want int64
	}{
		{"a look from the start", stagebus.ConsumerOptions{Mode: stagebus.Assigned}, 20},
		{"a look from an offset", stagebus.ConsumerOptions{Mode: stagebus.Assigned, Start: stagebus.Start{Kind: stagebus.StartOffset, Offset: 25}}, 5},
		{"a look from a time", stagebus.ConsumerOptions{Mode: stagebus.Assigned, Start: stagebus.Start{Kind: stagebus.StartTime}}, 0},
		{"a group", stagebus.ConsumerOptions{Group: "g"}, 7},
		{"a new group", stagebus.ConsumerOptions{Group: "new"}, 0},
	} {
		e := &end{log: true, targets: map[partition]int64{}}
		e.add("t", info, c.o)
		if got := e.expected(c.o); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := (*end)(nil).expected(stagebus.ConsumerOptions{}); got != 0 {
		t.Errorf("following expects %d", got)
	}
}
