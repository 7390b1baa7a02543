package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// WriteSettings says what is measured, before it is.
func (r *Report) WriteSettings(w io.Writer) error {
	s := r.Settings
	var b strings.Builder
	sizes := make([]string, len(s.Sizes))
	for i, n := range s.Sizes {
		sizes[i] = Size(n)
	}
	fmt.Fprintf(&b, "bench %s: bodies of %s", s.Mode, strings.Join(sizes, ", "))
	switch {
	case s.Mode == Consume:
		b.WriteString(", published first, then read as fast as possible")
	case s.Rate > 0:
		fmt.Fprintf(&b, ", %s messages a second", figures(s.Rate))
	default:
		b.WriteString(", as fast as possible, then at half of that")
	}
	var until []string
	if s.Duration > 0 {
		until = append(until, seconds(s.Duration))
	}
	if s.Count > 0 {
		until = append(until, number(s.Count)+" messages")
	}
	fmt.Fprintf(&b, "; %s", strings.Join(until, " or "))
	if s.Warmup > 0 && s.Mode != Consume {
		fmt.Fprintf(&b, " after %s of warm-up", seconds(s.Warmup))
	}
	fmt.Fprintf(&b, "; %s\n", many(s.Rounds, "round"))
	fmt.Fprintf(&b, "%s", many(s.Producers, "producer"))
	if s.Mode != Publish {
		fmt.Fprintf(&b, ", %s", many(s.Consumers, "consumer"))
	}
	fmt.Fprintf(&b, ", batches of at most %s, ", many(s.Batch, "message"))
	if s.Keys == 0 {
		b.WriteString("no keys")
	} else {
		b.WriteString(many(s.Keys, "key"))
	}
	if (s.Mode == Both || s.Mode == Request) && s.Rate == 0 {
		fmt.Fprintf(&b, ", at most %s on their way", number(int64(s.inFlight(slices.Min(s.Sizes)))))
	}
	if s.Window > 0 {
		fmt.Fprintf(&b, ", a window of %s", number(int64(s.Window)))
	}
	if s.Prefetch > 0 {
		fmt.Fprintf(&b, ", %s prefetched", number(int64(s.Prefetch)))
	}
	fmt.Fprintf(&b, "\ndurability %s\n", s.Durability)
	for i, x := range r.Brokers {
		name := r.letter(i)
		if name != "" {
			name += "  "
		}
		what := x.Storage + "; " + x.Durability
		if x.Server != "" {
			what = x.Server + "; " + what
		}
		fmt.Fprintf(&b, "%s%s  %s\n", name, x.URL, what)
	}
	m := r.Machine
	fmt.Fprintf(&b, "stagebus %s, %s, %s/%s, %s\n", m.Stagebus, m.Go, m.OS, m.Arch, many(m.Cores, "core"))
	_, err := io.WriteString(w, b.String())
	return err
}

// letter names a broker where there are several.
func (r *Report) letter(i int) string {
	if len(r.Brokers) < 2 {
		return ""
	}
	return string(rune('A' + i%26))
}

func many(n int, what string) string {
	s := number(int64(n)) + " " + what
	if n != 1 {
		s += "s"
	}
	return s
}

// Titles of the loads' tables.
func (r *Report) title(load string) string {
	switch load {
	case LoadMax:
		return "as fast as possible"
	case LoadHalf:
		return "at half of that"
	}
	return "at " + figures(r.Settings.Rate) + " messages a second"
}

var countNames = []struct {
	name string
	get  func(*Counts) int64
	when func(Mode) bool
}{
	{"failed", func(c *Counts) int64 { return c.Failed + c.Uncertain }, func(Mode) bool { return true }},
	{"lost", func(c *Counts) int64 { return c.Lost }, func(m Mode) bool { return m != Publish }},
	{"twice", func(c *Counts) int64 { return c.Duplicate }, func(m Mode) bool { return m != Publish }},
	{"out of order", func(c *Counts) int64 { return c.OutOfOrder }, func(m Mode) bool { return m != Publish }},
}

// WriteTable shows the figures: medians of the rounds, and half of their range.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	for _, load := range []string{LoadMax, LoadHalf, LoadRate} {
		var rows []*Row
		for i := range r.Rows {
			if r.Rows[i].Load == load {
				rows = append(rows, &r.Rows[i])
			}
		}
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", r.title(load))
		t := table.NewWriter()
		t.SetStyle(style)
		if len(r.Brokers) > 1 {
			r.compare(t, rows)
		} else {
			r.list(t, rows)
		}
		for line := range strings.Lines(t.Render() + "\n") {
			b.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
	}
	if n := r.notes(); len(n) > 0 {
		b.WriteString("\n" + strings.Join(n, "\n") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// style is a table's without frames, which paste well.
var style = func() table.Style {
	s := table.StyleDefault
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Options = table.OptionsNoBordersAndSeparators
	s.Format.Header = text.FormatDefault
	return s
}()

// list has a row for each size.
func (r *Report) list(t table.Writer, rows []*Row) {
	header := table.Row{"size"}
	shown := r.metricsOf(rows)
	for _, m := range shown {
		header = append(header, m.name)
	}
	for _, c := range countNames {
		if c.when(r.Settings.Mode) {
			header = append(header, c.name)
		}
	}
	t.AppendHeader(header)
	for _, row := range rows {
		cells := table.Row{Size(row.Size)}
		for _, m := range shown {
			cells = append(cells, cell(row, m))
		}
		for _, c := range countNames {
			if c.when(r.Settings.Mode) {
				cells = append(cells, row.count(c.get))
			}
		}
		t.AppendRow(cells)
	}
	right(t, len(header))
}

// compare has a column for each broker and a row for each figure, and says how many times the first broker's a figure is.
func (r *Report) compare(t table.Writer, rows []*Row) {
	header := table.Row{"size", ""}
	for i := range r.Brokers {
		header = append(header, r.letter(i)+" "+kindName(r.Brokers[i].Kind))
		if i > 0 {
			header = append(header, r.letter(i)+"/"+r.letter(0))
		}
	}
	t.AppendHeader(header)
	for _, size := range r.Settings.Sizes {
		by := make([]*Row, len(r.Brokers))
		for _, row := range rows {
			if row.Size == size {
				by[row.Broker] = row
			}
		}
		name := Size(size)
		add := func(what string, show func(i int, row *Row) []any) {
			cells := table.Row{name, what}
			for i, row := range by {
				switch {
				case row != nil:
					cells = append(cells, show(i, row)...)
				case i == 0:
					cells = append(cells, "-")
				default:
					cells = append(cells, "-", "")
				}
			}
			t.AppendRow(cells)
			name = ""
		}
		for _, m := range r.metricsOf(rows) {
			add(m.name, func(i int, row *Row) []any {
				if i == 0 {
					return []any{cell(row, m)}
				}
				return []any{cell(row, m), ratio(row, by[0], m)}
			})
		}
		for _, c := range countNames {
			if c.when(r.Settings.Mode) {
				add(c.name, func(i int, row *Row) []any {
					if i == 0 {
						return []any{row.count(c.get)}
					}
					return []any{row.count(c.get), ""}
				})
			}
		}
	}
	right(t, len(header))
}

// right aligns all columns but the first to the right.
func right(t table.Writer, columns int) {
	cs := make([]table.ColumnConfig, 0, columns)
	for i := 2; i <= columns; i++ {
		cs = append(cs, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(cs)
}

func kindName(kind string) string {
	switch kind {
	case RabbitMQ:
		return "RabbitMQ"
	case Kafka:
		return "Kafka"
	}
	return kind
}

// metricsOf are those that rows have, without what only JSON shows.
func (r *Report) metricsOf(rows []*Row) (ms []metric) {
	for _, m := range allMetrics {
		if m.name == "bytes allocated/message" {
			continue
		}
		if slices.ContainsFunc(rows, func(row *Row) bool { _, ok := m.get(&row.Median); return ok }) {
			ms = append(ms, m)
		}
	}
	return ms
}

// cell shows a median, with half of the range of the rounds in percent of it if there are several.
func cell(row *Row, m metric) string {
	v, ok := m.get(&row.Median)
	if !ok {
		return "-"
	}
	s := m.show(v)
	if len(row.Rounds) < 2 || v == 0 {
		return s
	}
	least, _ := m.get(&row.Min)
	most, _ := m.get(&row.Max)
	if spread := (most - least) / 2 / v * 100; spread < 99.5 {
		return fmt.Sprintf("%s ±%.0f%%", s, spread)
	}
	return s + " ±>99%"
}

func ratio(row, to *Row, m metric) string {
	if to == nil {
		return ""
	}
	a, ok1 := m.get(&row.Median)
	b, ok2 := m.get(&to.Median)
	if !ok1 || !ok2 || b == 0 {
		return ""
	}
	return figures(a/b) + "x"
}

// count is the sum of the rounds.
func (row *Row) count(get func(*Counts) int64) string {
	var n int64
	for i := range row.Rounds {
		n += get(&row.Rounds[i].Counts)
	}
	return number(n)
}
