package bench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSizes(t *testing.T) {
	for in, want := range map[string][]int{
		"100":           {100},
		"1KB":           {1000},
		"1kb, 1KiB":     {1000, 1024},
		"100,1KB,100KB": {100, 1000, 100_000},
		"1.5MB":         {1_500_000},
		"2 MiB":         {2 << 20},
		"64k":           {64_000},
		"1M":            {1_000_000},
		"50B":           {50},
		"100,":          nil,
		"":              nil,
		"x":             nil,
		"1.5":           nil,
		"-1":            nil,
		"1e30":          nil,
		"NaN":           nil,
		"1GB":           nil,
		"KB":            nil,
		"0x10":          nil,
		"1,000,000":     {1, 0, 0}, // commas part sizes; Check refuses such small ones
	} {
		got, err := ParseSizes(in)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "is not a size") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]float64{
		"0": 0, "500": 500, "20k": 20_000, "1.5M": 1_500_000, "200/s": 200, "0.5": 0.5, " 10K/s ": 10_000,
		"": -1, "fast": -1, "-1": -1, "NaN": -1, "Inf": -1, "10G": -1, "k": -1,
	} {
		got, err := ParseRate(in)
		if want < 0 {
			if err == nil {
				t.Errorf("%q is taken for %v", in, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestParseTolerance(t *testing.T) {
	for in, want := range map[string]float64{"20%": 0.2, "0.2": 0.2, "0": 0, "150%": 1.5, "x": -1, "-1%": -1, "2000%": -1, "NaN": -1, "%": -1} {
		got, err := ParseTolerance(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestShow(t *testing.T) {
	for n, want := range map[int]string{
		28: "28 B", 100: "100 B", 999: "999 B", 1000: "1 KB", 1024: "1 KiB", 1500: "1.5 KB", 1555: "1555 B", 100_000: "100 KB", 64 << 10: "64 KiB", 1_000_000: "1 MB", 2 << 20: "2 MiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0 ns", 999: "999 ns", 1000: "1.00 µs", 12_345: "12.3 µs", 999_900: "1.00 ms", 123_456_789: "123 ms", time.Second: "1.00 s", 90 * time.Second: "90.0 s", 999_600: "1.00 ms",
	} {
		if got := short(int64(d)); got != want {
			t.Errorf("%d: got %s, want %s", int64(d), got, want)
		}
	}
	for f, want := range map[float64]string{0: "0.00", 1.234: "1.23", 9.996: "10.0", 45.67: "45.7", 99.96: "100", 1234.5: "1,235", 1234567: "1,234,567"} {
		if got := figures(f); got != want {
			t.Errorf("%v: got %s, want %s", f, got, want)
		}
	}
	if got := number(-1234567); got != "-1,234,567" {
		t.Error(got)
	}
}

// A wrong setting is named by its flag.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		change func(s *Settings)
		want   string
	}{
		{func(*Settings) {}, ""},
		{func(s *Settings) { s.Duration, s.Count = 0, 10 }, ""},
		{func(s *Settings) { s.Keys, s.Warmup = 0, 0 }, ""},
		{func(s *Settings) { s.Topic = "t" }, ""},
		{func(s *Settings) { s.Mode = "x" }, "mode"},
		{func(s *Settings) { s.Sizes = nil }, "--size"},
		{func(s *Settings) { s.Sizes = []int{27} }, "--size 27 B: it is from 28 B"},
		{func(s *Settings) { s.Sizes = []int{1 << 30} }, "--size"},
		{func(s *Settings) { s.Producers = 0 }, "--producers 0: it is from 1"},
		{func(s *Settings) { s.Consumers = 1e6 }, "--consumers"},
		{func(s *Settings) { s.Batch = -1 }, "--batch"},
		{func(s *Settings) { s.Parts = 0 }, "--partitions"},
		{func(s *Settings) { s.Rounds = 0 }, "--rounds"},
		{func(s *Settings) { s.Keys = -1 }, "--keys -1: it is from 1 to 1048576, or 0 for no key"},
		{func(s *Settings) { s.Window = -1 }, "--window"},
		{func(s *Settings) { s.Prefetch = -1 }, "--prefetch"},
		{func(s *Settings) { s.InFlight = -1 }, "--in-flight"},
		{func(s *Settings) { s.Rate = 1e12 }, "--rate"},
		{func(s *Settings) { s.Rate = 1e-9 }, "--rate"},
		{func(s *Settings) { s.Mode, s.Rate = Consume, 5 }, "bench both --rate"},
		{func(s *Settings) { s.Count = -1 }, "--count"},
		{func(s *Settings) { s.Duration = 0 }, "--duration"},
		{func(s *Settings) { s.Duration = 1e6 * time.Hour }, "--duration"},
		{func(s *Settings) { s.Warmup = -1 }, "--warmup"},
		{func(s *Settings) { s.Durability = "x" }, "--durability"},
		{func(s *Settings) { s.Topic = "a--b" }, "invalid topic"},
		{func(s *Settings) { s.Topic, s.Consumers = "t", 2 }, "--consumers 2: of a given --topic"},
		{func(s *Settings) { s.Mode, s.Topic = Request, "t" }, "--topic t: request"},
	} {
		s := Defaults(Both)
		c.change(&s)
		err := s.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", s, err, c.want)
		}
	}
}

func TestShownURL(t *testing.T) {
	for raw, want := range map[string]string{
		"amqp://guest:secret@localhost:5672/vhost?queue_type=classic&heartbeat=5s": "amqp://localhost:5672/vhost?queue_type=classic",
		"amqp://h/?management=http://u:secret@h:15672":                             "amqp://h/",
		"kafka://u:secret@a:1,b:2/?client_id=secret":                               "kafka://a:1,b:2/",
		"memory://x?partitions=4":                                                  "memory://x?partitions=4",
	} {
		x, err := NewTarget(raw, nil)
		if err != nil || x.url != want {
			t.Errorf("%s: %v, %+v", raw, err, x)
		}
	}
	if x, err := NewTarget("amqp://h/?queue_type=classic", nil); err != nil || x.queues(Safe) != "classic" || x.kind != RabbitMQ {
		t.Errorf("%v, %+v", err, x)
	}
	if x, err := NewTarget("amqp://h/", nil); err != nil || x.queues(Safe) != "quorum" || x.queues(Unsafe) != "classic" {
		t.Errorf("%v, %+v", err, x)
	}
	if _, err := NewTarget("amqp://u:sec%ret@h/", nil); err == nil || strings.Contains(err.Error(), "sec") {
		t.Errorf("%v", err)
	}
}
