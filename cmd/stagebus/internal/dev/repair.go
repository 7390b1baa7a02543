package dev

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Repairs says what was found in a directory, and done to it, before it was used.
type Repairs struct {
	Killed     bool  // the last process was killed, or couldn't write everything
	Partitions int   // partitions that were read through for that
	Aborted    int   // producers with a transaction that was open
	Torn       int64 // bytes of writes that the kill cut off: of messages and offsets that nobody got an acknowledgement for
}

// repair makes a directory fit for kfake, which by itself
//
//   - appends behind the torn end of its logs of groups and producers, so that a second kill loses all that came after the first;
//   - forgets after a kill what idempotent producers have sent, and takes a batch for a new one that they send again;
//   - aborts open transactions without a mark in the log, and hides from readers what the same producer commits later;
//   - counts offsets from 0 again in a partition whose messages were all deleted, below what groups have committed, so that they skip
//     what comes.
//
// Everything it relies on are kfake's files of version 1; go.mod pins the kfake that writes them.
func repair(dir string, killed bool) (Repairs, error) {
	r := Repairs{Killed: killed}
	d := &store{dir: dir}
	if err := d.load(); err != nil {
		return r, err
	}
	if killed {
		for _, name := range []string{"groups.log", "pids.log"} {
			torn, err := cutLog(filepath.Join(dir, name))
			if err != nil {
				return r, err
			}
			r.Torn += torn
		}
		w := &producers{windows: make(map[windowKey]*window), aborted: make(map[int64]int16)}
		for _, p := range d.partitions {
			torn, err := p.repair(w)
			if err != nil {
				return r, fmt.Errorf("partition %d of %q: %w", p.id, p.topic, err)
			}
			r.Partitions++
			r.Torn += torn
		}
		if err := w.write(dir); err != nil {
			return r, err
		}
		r.Aborted = len(w.aborted)
	}
	for _, p := range d.partitions {
		if err := p.keepOffsets(d.committed[p.topic][p.id]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// store is kfake's directory.
type store struct {
	dir        string
	partitions []*partition
	committed  map[string]map[int32]int64 // the highest offset that any group has committed
}

// partition is one partition's directory.
type partition struct {
	topic    string
	id       int32
	dir      string
	segments []int64 // by their first offset, ascending
}

func (d *store) load() error {
	var file struct {
		Topics []struct {
			Name       string
			Partitions int32
		}
	}
	if err := readJSON(filepath.Join(d.dir, "topics.json"), &file); err != nil {
		return err
	}
	for _, t := range file.Topics {
		for id := range t.Partitions {
			p := &partition{topic: t.Name, id: id, dir: filepath.Join(d.dir, "partitions", fmt.Sprintf("%s-%d", url.PathEscape(t.Name), id))}
			if err := p.list(); err != nil {
				return err
			}
			d.partitions = append(d.partitions, p)
		}
	}
	entries, _, err := readLog(filepath.Join(d.dir, "groups.log"))
	if err != nil {
		return err
	}
	d.committed = make(map[string]map[int32]int64)
	for _, b := range entries {
		var e groupEntry
		if json.Unmarshal(b, &e) != nil || e.Type != "commit" {
			continue // kfake skips it as well
		}
		if d.committed[e.Topic] == nil {
			d.committed[e.Topic] = make(map[int32]int64)
		}
		d.committed[e.Topic][e.Part] = max(d.committed[e.Topic][e.Part], e.Offset)
	}
	return nil
}

func (p *partition) list() error {
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".dat")
		if base, err := strconv.ParseInt(name, 10, 64); ok && err == nil {
			p.segments = append(p.segments, base)
		}
	}
	slices.Sort(p.segments)
	return err
}

func (p *partition) file(base int64, suffix string) string {
	return filepath.Join(p.dir, strconv.FormatInt(base, 10)+suffix)
}

// snapshot is what kfake writes of a partition at the end.
type snapshot struct {
	Version          int               `json:"version"`
	HighWatermark    int64             `json:"high_watermark"`
	LastStableOffset int64             `json:"last_stable_offset"`
	LogStartOffset   int64             `json:"log_start_offset"`
	Epoch            int32             `json:"epoch"`
	CreatedAt        time.Time         `json:"created_at"`
	Segments         []snapshotSegment `json:"segments"`
}

type snapshotSegment struct {
	BaseOffset int64 `json:"base_offset"`
	Size       int64 `json:"size"`
}

func (p *partition) snapshot() string { return filepath.Join(p.dir, "snapshot.json") }

// keepOffsets makes an emptied partition go on behind the highest offset known. kfake reads a snapshot only where there is a segment, so
// it gets one without messages.
func (p *partition) keepOffsets(committed int64) error {
	for _, base := range p.segments {
		if info, err := os.Stat(p.file(base, ".dat")); err != nil || info.Size() > 0 {
			return err
		}
	}
	for _, base := range p.segments {
		if err := os.Remove(p.file(base, ".dat")); err != nil {
			return err
		}
	}
	var s snapshot
	if err := readJSON(p.snapshot(), &s); err != nil {
		return err
	}
	next := max(s.HighWatermark, committed)
	if next == 0 {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(p.file(next, ".dat"), nil, 0o644); err != nil {
		return err
	}
	return writeJSON(p.snapshot(), snapshot{
		Version: entryVersion, HighWatermark: next, LastStableOffset: next, LogStartOffset: next, Epoch: s.Epoch, CreatedAt: time.Now(),
		Segments: []snapshotSegment{{BaseOffset: next}},
	})
}

// readLog returns the entries of a log, and how long its sound beginning is.
func readLog(name string) (entries [][]byte, valid int64, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	for len(b) >= entryHeader {
		size := binary.LittleEndian.Uint32(b)
		if size < 2 || uint64(size) > uint64(len(b)-entryHeader) {
			break
		}
		body := b[entryHeader : entryHeader+size]
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
			break
		}
		entries = append(entries, body[2:])
		b = b[entryHeader+size:]
		valid += entryHeader + int64(size)
	}
	return entries, valid, err
}

// cutLog cuts the torn end off a log and returns how long it was.
func cutLog(name string) (int64, error) {
	_, valid, err := readLog(name)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil || info.Size() == valid {
		return 0, err
	}
	return info.Size() - valid, os.Truncate(name, valid)
}

// readJSON leaves v alone if the file is missing.
func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}

// writeJSON replaces a file at once, or not at all.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(name, b)
}

func replace(name string, b []byte) error {
	if err := os.WriteFile(name+".tmp", b, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
