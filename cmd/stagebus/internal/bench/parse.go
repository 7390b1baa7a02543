package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var units = []struct {
	name  string
	bytes float64
}{
	{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"KB", 1e3}, {"MB", 1e6}, {"K", 1e3}, {"M", 1e6}, {"B", 1}, {"", 1},
}

// ParseSizes reads sizes such as "100,1KB,64KiB": 1 KB is 1,000 bytes, 1 KiB is 1,024.
func ParseSizes(s string) ([]int, error) {
	var sizes []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := parseSize(part)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

func parseSize(s string) (int, error) {
	text := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		n := f * u.bytes
		if err != nil || !(n >= 0 && n < 1<<40) || n != math.Trunc(n) {
			break
		}
		return int(n), nil
	}
	return 0, fmt.Errorf("%q is not a size: sizes are 100, 1KB (1,000 bytes) or 64KiB (65,536), several with commas", s)
}

// ParseRate reads messages a second: "5000", "5k", "1.5M", "200/s".
func ParseRate(s string) (float64, error) {
	text := strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(s)), "/S")
	factor := 1.0
	switch {
	case strings.HasSuffix(text, "K"):
		text, factor = strings.TrimSuffix(text, "K"), 1e3
	case strings.HasSuffix(text, "M"):
		text, factor = strings.TrimSuffix(text, "M"), 1e6
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0, fmt.Errorf("%q is not a rate: it is messages a second, such as 500, 20k or 1.5M", s)
	}
	return f * factor, nil
}

// ParseTolerance reads "20%" or "0.2".
func ParseTolerance(s string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 10) {
		return 0, fmt.Errorf("%q is not a tolerance: it is a share such as 20%% or 0.2", s)
	}
	return f, nil
}

// Size is how a size is shown: in the largest unit that keeps it a short number.
func Size(n int) string {
	for _, u := range []struct {
		name  string
		bytes int
	}{{"MB", 1e6}, {"MiB", 1 << 20}, {"KB", 1e3}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n*10%u.bytes == 0 {
			return strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', -1, 64) + " " + u.name
		}
	}
	return strconv.Itoa(n) + " B"
}

// number shows n with the thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// short shows a duration in three figures at most, with the unit that fits.
func short(ns int64) string {
	d := float64(ns)
	for _, u := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if d >= u.ns*0.9995 {
			return figures(d/u.ns) + " " + u.name
		}
	}
	return strconv.FormatInt(ns, 10) + " ns"
}

// figures shows a positive number with three figures, or all those before the point.
func figures(f float64) string {
	switch {
	case f >= 99.95:
		return number(int64(math.Round(f)))
	case f >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s" }
