package bench

import (
	"runtime"
	"slices"
	"time"
)

// What a report in JSON says that it is. Version grows when a field changes its meaning or goes; new fields don't change it.
const (
	ReportFormat  = "stagebus-bench"
	ReportVersion = 1
)

// Report is what a run has measured. Its JSON form is for programs and for later comparison: times are in nanoseconds.
type Report struct {
	Format      string    `json:"format"`
	Version     int       `json:"version"`
	Time        time.Time `json:"time"`
	Run         string    `json:"run"` // topics that are made are called stagebus-bench.RUN.NUMBER
	Machine     Machine   `json:"machine"`
	Settings    Settings  `json:"settings"`
	Brokers     []Broker  `json:"brokers"`
	Rows        []Row     `json:"rows"`
	Interrupted bool      `json:"interrupted"` // it ended early: the figures are of what was measured until then
}

// Machine is where the client ran.
type Machine struct {
	Stagebus string `json:"stagebus"` // its version
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Cores    int    `json:"cores"`
}

func machine(version string) Machine {
	return Machine{Stagebus: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.GOMAXPROCS(0)}
}

// Broker is what was measured.
type Broker struct {
	URL        string `json:"url"`        // without credentials
	Kind       string `json:"kind"`       // rabbitmq, kafka, memory
	Server     string `json:"server"`     // product and version as far as the broker says
	Storage    string `json:"storage"`    // what messages are kept in
	Durability string `json:"durability"` // what a confirmation promises
}

// The loads of a row.
const (
	LoadMax  = "max"  // as fast as possible
	LoadHalf = "half" // half of what was found for max
	LoadRate = "rate" // Settings.Rate
)

// Row is one broker with one size under one load.
type Row struct {
	Broker int    `json:"broker"` // index of Report.Brokers
	Size   int    `json:"size"`
	Load   string `json:"load"`
	// Median, Min and Max are of the rounds, each figure by itself.
	Median Figures `json:"median"`
	Min    Figures `json:"min"`
	Max    Figures `json:"max"`
	Rounds []Round `json:"rounds"`
}

// Figures are what is compared. Nil is what isn't known, or not measured under this load.
type Figures struct {
	PerSecond      float64  `json:"messages_per_second"`
	BytesPerSecond float64  `json:"bytes_per_second"` // bodies, keys, headers and attributes
	Latency        *Latency `json:"latency"`
	CPU            *float64 `json:"cpu_ns_per_message"` // of this process: both ends, without the broker unless that is memory
	Allocs         *float64 `json:"allocs_per_message"`
	AllocBytes     *float64 `json:"alloc_bytes_per_message"`
}

// Latency is from the scheduled time of a message to its confirmation, receipt or reply. It is measured under a schedule alone: of messages
// that are sent as fast as possible, each waits for those before it, and how long says how many were allowed to wait.
type Latency struct {
	P50  int64 `json:"p50_ns"`
	P90  int64 `json:"p90_ns"`
	P99  int64 `json:"p99_ns"`
	P999 int64 `json:"p99_9_ns"`
	Max  int64 `json:"max_ns"`
}

// Round is one measurement.
type Round struct {
	Figures
	Seconds  float64 `json:"seconds"`  // what rates are made of
	Measured int64   `json:"messages"` // without those of the warm-up
	Asked    float64 `json:"asked_per_second"`
	// Unsent messages of the schedule were given up, long after the time was over.
	Unsent int64 `json:"unsent"`
	// Late is how much the generator itself was late, apart from waiting for the broker. Large, the machine was too busy to measure.
	LateP99 int64 `json:"generator_late_p99_ns"`
	LateMax int64 `json:"generator_late_max_ns"`
	// FirstMessage is how long the first message took after the consumers were opened, for Consume.
	FirstMessage int64   `json:"first_message_ns"`
	Counts       Counts  `json:"counts"`
	Points       []Point `json:"points"`
}

// Counts are exact, of all messages, those of the warm-up too.
type Counts struct {
	Confirmed int64 `json:"confirmed"`
	Failed    int64 `json:"failed"`
	Uncertain int64 `json:"uncertain"` // they may have arrived
	Received  int64 `json:"received"`  // each message once
	Lost      int64 `json:"lost"`      // confirmed, and not received
	Duplicate int64 `json:"duplicate"`
	// OutOfOrder are messages that came after a later one of the same key and producer.
	OutOfOrder int64  `json:"out_of_order"`
	Foreign    int64  `json:"foreign"` // not of this measurement
	Error      string `json:"error"`   // the first
}

// Point is a stretch of a measurement: what was completed in it, and the latencies of what was due in it.
type Point struct {
	At        int64   `json:"at_ns"` // its beginning, from the start of the warm-up
	PerSecond float64 `json:"messages_per_second"`
	P50       int64   `json:"p50_ns"`
	P99       int64   `json:"p99_ns"`
}

// Lost is how many messages were confirmed and not received, in all rows.
func (r *Report) Lost() (n int64) {
	for _, row := range r.Rows {
		for _, round := range row.Rounds {
			n += round.Counts.Lost
		}
	}
	return n
}

// Failed is how many messages were not confirmed, and the first error.
func (r *Report) Failed() (n int64, first string) {
	for _, row := range r.Rows {
		for _, round := range row.Rounds {
			n += round.Counts.Failed + round.Counts.Uncertain
			if first == "" {
				first = round.Counts.Error
			}
		}
	}
	return n, first
}

// add puts a round into its row.
func (r *Report) add(broker, size int, load string, round Round) {
	i := slices.IndexFunc(r.Rows, func(x Row) bool { return x.Broker == broker && x.Size == size && x.Load == load })
	if i < 0 {
		r.Rows = append(r.Rows, Row{Broker: broker, Size: size, Load: load})
		i = len(r.Rows) - 1
	}
	row := &r.Rows[i]
	row.Rounds = append(row.Rounds, round)
	row.summarise()
}

// summarise computes Min, Median and Max.
func (row *Row) summarise() {
	for _, m := range allMetrics {
		var vs []float64
		for i := range row.Rounds {
			if v, ok := m.get(&row.Rounds[i].Figures); ok {
				vs = append(vs, v)
			}
		}
		if len(vs) == 0 {
			continue
		}
		m.set(&row.Min, slices.Min(vs))
		m.set(&row.Max, slices.Max(vs))
		m.set(&row.Median, median(vs))
	}
}

// median sorts vs, which must not be empty.
func median(vs []float64) float64 {
	slices.Sort(vs)
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// metric is one of the Figures.
type metric struct {
	name   string // for people
	better int    // 1: more is better, -1: less is better, 0: neither, it follows from another
	get    func(*Figures) (float64, bool)
	set    func(*Figures, float64)
	show   func(float64) string
}

func latencyMetric(name string, better int, at func(*Latency) *int64) metric {
	return metric{name, better,
		func(f *Figures) (float64, bool) {
			if f.Latency == nil {
				return 0, false
			}
			return float64(*at(f.Latency)), true
		},
		func(f *Figures, v float64) {
			if f.Latency == nil {
				f.Latency = &Latency{}
			}
			*at(f.Latency) = int64(v)
		},
		func(v float64) string { return short(int64(v)) },
	}
}

func costMetric(name string, better int, at func(*Figures) **float64, show func(float64) string) metric {
	return metric{name, better,
		func(f *Figures) (float64, bool) {
			if p := *at(f); p != nil {
				return *p, true
			}
			return 0, false
		},
		func(f *Figures, v float64) { *at(f) = &v },
		show,
	}
}

// allMetrics are all figures, in the order of tables.
var allMetrics = []metric{
	{"messages/s", 1, func(f *Figures) (float64, bool) { return f.PerSecond, true }, func(f *Figures, v float64) { f.PerSecond = v }, figures},
	{"MB/s", 0, func(f *Figures) (float64, bool) { return f.BytesPerSecond, true }, func(f *Figures, v float64) { f.BytesPerSecond = v },
		func(v float64) string { return figures(v / 1e6) }},
	latencyMetric("p50", -1, func(l *Latency) *int64 { return &l.P50 }),
	latencyMetric("p90", 0, func(l *Latency) *int64 { return &l.P90 }),
	latencyMetric("p99", -1, func(l *Latency) *int64 { return &l.P99 }),
	latencyMetric("p99.9", 0, func(l *Latency) *int64 { return &l.P999 }),
	latencyMetric("max", 0, func(l *Latency) *int64 { return &l.Max }),
	costMetric("CPU/message", -1, func(f *Figures) **float64 { return &f.CPU }, func(v float64) string { return short(int64(v)) }),
	costMetric("allocs/message", -1, func(f *Figures) **float64 { return &f.Allocs }, figures),
	costMetric("bytes allocated/message", 0, func(f *Figures) **float64 { return &f.AllocBytes }, figures),
}
