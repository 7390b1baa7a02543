package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// WriteJSON writes the report as one object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadReport reads what WriteJSON wrote. An error says what else it is.
func ReadReport(rd io.Reader) (*Report, error) {
	var r Report
	d := json.NewDecoder(rd)
	err := d.Decode(&r)
	switch {
	case r.Format == ReportFormat && r.Version != ReportVersion:
		return nil, fmt.Errorf("it is a report of version %d, this program has %d: measure the baseline again", r.Version, ReportVersion)
	case err != nil:
		return nil, fmt.Errorf("it is not a report: %w", err)
	case r.Format != ReportFormat:
		return nil, errors.New(`it is not a report: "format" is missing; --save writes one`)
	}
	if err := r.Settings.Check(); err != nil {
		return nil, fmt.Errorf("it is not a report: its settings: %w", err)
	}
	for _, row := range r.Rows {
		if row.Broker < 0 || row.Broker >= len(r.Brokers) || len(row.Rounds) == 0 {
			return nil, errors.New("it is not a report: a row names no broker, or has no rounds")
		}
	}
	return &r, nil
}

// CheckBaseline says why the figures of base can't be compared with those of a run that r announces: other settings, or other brokers. It
// needs no figures of r. What should be known, but doesn't forbid to compare, is in notes.
func (r *Report) CheckBaseline(base *Report) (notes []string, err error) {
	now, then := r.Settings, base.Settings
	now.Rounds, then.Rounds = 0, 0 // more rounds are the same measured better
	a, b := reflect.ValueOf(now), reflect.ValueOf(then)
	var differ []string
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
			differ = append(differ, fmt.Sprintf("%s is %v, the baseline's %v", strings.TrimSuffix(name, "_ns"), x, y))
		}
	}
	switch {
	case len(differ) > 0:
		return nil, fmt.Errorf("the baseline has other settings: %s", strings.Join(differ, "; "))
	case base.Interrupted:
		return nil, errors.New("the baseline was interrupted: measure it again")
	case len(r.Brokers) != len(base.Brokers):
		return nil, fmt.Errorf("the baseline has %s, this run %s", many(len(base.Brokers), "broker"), many(len(r.Brokers), "broker"))
	}
	for i, x := range r.Brokers {
		y := base.Brokers[i]
		switch {
		case x.Kind != y.Kind:
			return nil, fmt.Errorf("broker %d is %s, the baseline's %s", i+1, kindName(x.Kind), kindName(y.Kind))
		case x.Storage != y.Storage:
			return nil, fmt.Errorf("broker %d keeps messages in a %s, the baseline's in a %s", i+1, x.Storage, y.Storage)
		case x.Server != y.Server:
			notes = append(notes, fmt.Sprintf("broker %d is %s, the baseline's %s", i+1, x.Server, y.Server))
		}
	}
	m, n := r.Machine, base.Machine
	m.Stagebus, n.Stagebus = "", "" // a change of it is what is looked for
	if m != n {
		notes = append(notes, fmt.Sprintf("this machine is %s %s/%s with %s, the baseline's %s %s/%s with %s: only ratios of one machine mean something",
			m.Go, m.OS, m.Arch, many(m.Cores, "core"), n.Go, n.OS, n.Arch, many(n.Cores, "core")))
	}
	return notes, nil
}

// enough rounds show how far figures scatter.
const enough = 3

// Compare returns a line for each figure of r that is worse than base's by more than tolerance, as a share. Where both have three
// rounds or more, figures whose ranges overlap are noise, and in notes; so is what can't be compared.
func (r *Report) Compare(base *Report, tolerance float64) (regressions, notes []string) {
	for i := range base.Rows {
		then := &base.Rows[i]
		now := r.row(then)
		where := fmt.Sprintf("%s, %s, %s", base.Brokers[then.Broker].URL, Size(then.Size), r.title(then.Load))
		if now == nil {
			regressions = append(regressions, where+": not measured this time")
			continue
		}
		for _, m := range allMetrics {
			if m.better == 0 {
				continue
			}
			a, ok1 := m.get(&now.Median)
			b, ok2 := m.get(&then.Median)
			if !ok1 || !ok2 || b == 0 || !m.counts(then.Load) {
				continue
			}
			if then.Load == LoadHalf && !similar(now, then, tolerance) {
				notes = append(notes, fmt.Sprintf("%s: the load isn't that of the baseline (%s a second, then %s), so latencies can't be compared; --rate makes them",
					where, figures(now.asked()), figures(then.asked())))
				break
			}
			worse := a/b - 1
			if m.better > 0 {
				worse = 1 - a/b
			}
			if worse <= tolerance {
				continue
			}
			line := fmt.Sprintf("%s: %s is %s, the baseline's %s: %s worse, %.0f%% are allowed", where, m.name, m.show(a), m.show(b), percent(worse), tolerance*100)
			if len(now.Rounds) >= enough && len(then.Rounds) >= enough && overlap(now, then, m) {
				notes = append(notes, line+"; but the ranges of the rounds overlap")
				continue
			}
			regressions = append(regressions, line)
		}
	}
	if len(regressions) > 0 && (r.Settings.Rounds < enough || base.Settings.Rounds < enough) {
		notes = append(notes, fmt.Sprintf("figures of few rounds scatter: measure both with --rounds %d or more, and ranges that overlap count as noise", enough))
	}
	return regressions, notes
}

// counts tells whether a figure says something under a load: rates do where nothing holds them back, latencies where a schedule does, and the
// cost of a message where there are many.
func (m metric) counts(load string) bool {
	latency := m.name == "p50" || m.name == "p99"
	return latency == (load != LoadMax) || m.name == "messages/s" && load == LoadRate
}

func (r *Report) row(like *Row) *Row {
	for i := range r.Rows {
		if x := &r.Rows[i]; x.Broker == like.Broker && x.Size == like.Size && x.Load == like.Load {
			return x
		}
	}
	return nil
}

// asked is the median of the rates that the rounds asked for.
func (row *Row) asked() float64 {
	rates := make([]float64, len(row.Rounds))
	for i := range row.Rounds {
		rates[i] = row.Rounds[i].Asked
	}
	return median(rates)
}

func similar(a, b *Row, tolerance float64) bool {
	x, y := a.asked(), b.asked()
	return x >= y*(1-tolerance) && x <= y*(1+tolerance)
}

func overlap(a, b *Row, m metric) bool {
	least1, _ := m.get(&a.Min)
	most1, _ := m.get(&a.Max)
	least2, _ := m.get(&b.Min)
	most2, _ := m.get(&b.Max)
	return least1 <= most2 && least2 <= most1
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", share*100) }
