package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update writes it):\n%s", file, got)
	}
}

func f(v float64) *float64 { return &v }

// round is a made-up measurement: as fast as possible if asked is 0.
func round(perSecond, asked float64, p50 time.Duration) Round {
	r := Round{
		Figures: Figures{PerSecond: perSecond, BytesPerSecond: perSecond * 1006, CPU: f(1e9 / perSecond), Allocs: f(4.5), AllocBytes: f(2000)},
		Seconds: 5, Measured: int64(perSecond * 5), Asked: asked, Counts: Counts{Confirmed: int64(perSecond * 6), Received: int64(perSecond * 6)},
	}
	for i := range 6 {
		r.Points = append(r.Points, Point{At: int64(time.Second) + int64(i)*int64(time.Second), PerSecond: perSecond * float64(i+1) / 6})
	}
	if asked > 0 {
		ns := int64(p50)
		r.Latency = &Latency{ns, 2 * ns, 3 * ns, 5 * ns, 8 * ns}
		r.LateP99, r.LateMax = int64(80*time.Microsecond), int64(2*time.Millisecond)
		for i := range r.Points {
			r.Points[i].P50, r.Points[i].P99 = ns, ns*int64(i+2)
		}
	}
	return r
}

func made(m Mode, rounds int, brokers ...Broker) *Report {
	s := Defaults(m)
	s.Rounds = rounds
	r := &Report{
		Format: ReportFormat, Version: ReportVersion, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Run: "1a2b3c4d",
		Machine: Machine{"v1.2.3", "go1.26", "linux", "amd64", 2}, Settings: s, Brokers: brokers,
	}
	for i := range rounds {
		k := 1 + 0.1*float64(i)
		for b := range brokers {
			n := 20_000 * k * float64(1+14*b)
			r.add(b, 1000, LoadMax, round(n, 0, 0))
			r.add(b, 1000, LoadHalf, round(n/2, n/2, time.Duration(float64(4*time.Millisecond)*k)))
		}
	}
	return r
}

var (
	rabbit = Broker{"amqp://localhost:5672/", RabbitMQ, "RabbitMQ 4.3.6", "quorum queue", "persistent, mandatory, confirmed"}
	kafka1 = Broker{"kafka://localhost:9092", Kafka, "Kafka", "4 partitions", "acks=all"}
)

func textOf(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	for _, write := range []error{r.WriteSettings(&b), r.WriteTable(&b), r.WritePlot(&b)} {
		if write != nil {
			t.Fatal(write)
		}
	}
	for line := range strings.Lines(b.String()) {
		if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
			t.Errorf("a line ends with spaces: %q", line)
		}
	}
	return b.String()
}

func TestText(t *testing.T) {
	golden(t, "one.golden", textOf(t, made(Both, 1, rabbit)))
	golden(t, "compare.golden", textOf(t, made(Both, 3, rabbit, kafka1)))

	r := made(Request, 1, rabbit)
	r.Settings.Sizes, r.Settings.Rate, r.Settings.Count, r.Settings.Duration, r.Settings.Keys = []int{100, 1000}, 5000, 100_000, 0, 0
	r.Settings.Consumers = 2
	r.Settings.Durability, r.Settings.Window, r.Settings.Prefetch = Unsafe, 10, 20
	r.Rows = nil
	bad := round(2000, 5000, time.Second)
	bad.Unsent, bad.LateP99 = 12_345, int64(20*time.Millisecond)
	bad.Counts.Lost, bad.Counts.Duplicate, bad.Counts.OutOfOrder, bad.Counts.Foreign, bad.Counts.Failed, bad.Counts.Error = 1, 2, 3, 4, 5, "queue is full"
	r.add(0, 100, LoadRate, bad)
	r.add(0, 1000, LoadRate, round(5000, 5000, time.Millisecond))
	golden(t, "trouble.golden", textOf(t, r))
}

// The names of the fields are an interface: a change shows in the diff.
func TestJSON(t *testing.T) {
	r := made(Both, 2, rabbit)
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.golden.json", b.String())
	back, err := ReadReport(&b)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("%v: what was read isn't what was written: %+v", err, back)
	}

	// A real one has the same fields, whatever their values.
	var x, y any
	var real bytes.Buffer
	s := small(Both)
	if err := measure(t, s, target(t)).WriteJSON(&real); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(filepath.Join("testdata", "report.golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		b    []byte
		into *any
	}{{made, &x}, {real.Bytes(), &y}} {
		if err := json.Unmarshal(p.b, p.into); err != nil {
			t.Fatal(err)
		}
	}
	a, c := map[string]bool{}, map[string]bool{}
	paths(x, "", a)
	paths(y, "", c)
	if !reflect.DeepEqual(a, c) {
		t.Errorf("fields of a made-up report and of a real one differ:\n%v\n%v", a, c)
	}
}

// paths collects the names of all fields.
func paths(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			paths(x, at+"."+k, into)
		}
	case []any:
		for _, x := range v {
			paths(x, at, into)
		}
	case nil: // what isn't known
	default:
		into[at] = true
	}
}

func TestSummary(t *testing.T) {
	r := &Report{}
	for _, n := range []float64{30, 10, 40, 20} {
		r.add(0, 1, LoadMax, Round{Figures: Figures{PerSecond: n}})
	}
	if row := r.Rows[0]; len(r.Rows) != 1 || row.Min.PerSecond != 10 || row.Median.PerSecond != 25 || row.Max.PerSecond != 40 || row.Median.Latency != nil || row.Median.CPU != nil {
		t.Errorf("%+v", r.Rows)
	}
}

func TestReadReportRefuses(t *testing.T) {
	other := made(Both, 1, rabbit)
	other.Rows[0].Broker = 3
	var b bytes.Buffer
	if err := other.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		b.String():                    "names no broker",
		"":                            "not a report",
		"{}":                          `"format" is missing`,
		`[1]`:                         "not a report",
		`{"format":"stagebus-bench"}`: "version 0",
		`{"format":"stagebus-bench","version":2,"settings":{"sizes":"x"}}`: "version 2",
		`{"format":"stagebus-bench","version":1,"settings":{"sizes":[5]}}`: "its settings: ",
	} {
		if _, err := ReadReport(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func TestBaseline(t *testing.T) {
	scaled := func(rounds int, rate, latency float64) *Report {
		r := made(Both, rounds, rabbit, kafka1)
		for i := range r.Rows {
			row := &r.Rows[i]
			for j := range row.Rounds {
				x := &row.Rounds[j]
				x.PerSecond *= rate
				if x.Latency != nil {
					x.Latency.P99 = int64(float64(x.Latency.P99) * latency)
				}
			}
			row.summarise()
		}
		return r
	}
	for _, c := range []struct {
		name             string
		now, base        *Report
		regress, explain int
		want             string
	}{
		{"the same", scaled(1, 1, 1), scaled(1, 1, 1), 0, 0, ""},
		{"better", scaled(1, 2, 0.5), scaled(1, 1, 1), 0, 0, ""},
		{"a little worse", scaled(1, 0.85, 1.15), scaled(1, 1, 1), 0, 0, ""},
		{"slower", scaled(1, 0.7, 1), scaled(1, 1, 1), 2, 1, "amqp://localhost:5672/, 1 KB, as fast as possible: messages/s is 14,000, the baseline's 20,000: 30.0% worse, 20% are allowed"},
		{"later", scaled(1, 1, 1.5), scaled(3, 1, 1.1), 2, 1, "kafka://localhost:9092, 1 KB, at half of that: p99 is 18.0 ms, the baseline's 14.5 ms: 24.0% worse"},
		{"slower within the noise", scaled(5, 0.79, 1), scaled(5, 1, 1), 0, 2, "but the ranges of the rounds overlap"},
		{"slower than any round", scaled(3, 0.5, 1), scaled(3, 1, 1), 2, 0, "messages/s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if notes, err := c.now.CheckBaseline(c.base); err != nil || len(notes) > 0 {
				t.Fatalf("%v, %v", err, notes)
			}
			regressions, notes := c.now.Compare(c.base, 0.2)
			all := strings.Join(slices.Concat(regressions, notes), "\n")
			if len(regressions) != c.regress || len(notes) != c.explain || !strings.Contains(all, c.want) {
				t.Errorf("%d regressions, %d notes:\n%s", len(regressions), len(notes), all)
			}
		})
	}

	t.Run("another load", func(t *testing.T) {
		now := made(Both, 1, rabbit)
		now.Rows[1].Rounds[0].Asked *= 2
		if regressions, notes := now.Compare(made(Both, 1, rabbit), 0.2); len(regressions) != 0 || len(notes) != 1 || !strings.Contains(notes[0], "--rate") {
			t.Errorf("%v, %v", regressions, notes)
		}
	})
	t.Run("not measured", func(t *testing.T) {
		now := made(Both, 1, rabbit)
		now.Rows = now.Rows[:1]
		if regressions, _ := now.Compare(made(Both, 1, rabbit), 0.2); len(regressions) != 1 || !strings.Contains(regressions[0], "not measured") {
			t.Errorf("%v", regressions)
		}
	})
}

func TestBaselineOfOtherSettings(t *testing.T) {
	for _, c := range []struct {
		change func(r *Report)
		want   string
	}{
		{func(r *Report) { r.Settings.Sizes = []int{100} }, "sizes is [1000], the baseline's [100]"},
		{func(r *Report) { r.Settings.Duration = time.Second }, "duration is 5s, the baseline's 1s"},
		{func(r *Report) { r.Settings.Mode, r.Settings.Rate = Publish, 5 }, "mode is both, the baseline's publish; rate is 0, the baseline's 5"},
		{func(r *Report) { r.Brokers = append(r.Brokers, kafka1) }, "the baseline has 2 brokers, this run 1 broker"},
		{func(r *Report) { r.Brokers[0] = kafka1 }, "broker 1 is RabbitMQ, the baseline's Kafka"},
		{func(r *Report) { r.Brokers[0].Storage = "classic queue" }, "quorum queue, the baseline's in a classic queue"},
		{func(r *Report) { r.Interrupted = true }, "interrupted"},
	} {
		base := made(Both, 1, rabbit)
		c.change(base)
		if _, err := made(Both, 1, rabbit).CheckBaseline(base); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	base := made(Both, 5, rabbit)
	base.Machine.Cores, base.Brokers[0].Server, base.Brokers[0].URL, base.Machine.Stagebus = 64, "RabbitMQ 3.8.9", "amqp://elsewhere/", "v0"
	notes, err := made(Both, 3, rabbit).CheckBaseline(base)
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "3.8.9") || !strings.Contains(notes[1], "64 cores") {
		t.Errorf("%v, %q", err, notes)
	}
}

// Whatever a file says, it is refused or can be compared.
func FuzzReadReport(f *testing.F) {
	var b bytes.Buffer
	if err := made(Both, 1, rabbit).WriteJSON(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadReport(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := made(Both, 1, rabbit).CheckBaseline(r); err == nil {
			made(Both, 1, rabbit).Compare(r, 0.2)
		}
		r.Compare(r, 0)
		var out bytes.Buffer
		if err := errors.Join(r.WriteSettings(&out), r.WriteTable(&out), r.WriteJSON(&out)); err != nil {
			t.Error(err)
		}
	})
}
