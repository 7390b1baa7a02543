package bench

import (
	"runtime/metrics"
	"time"
)

// usage is what this process has used so far.
type usage struct {
	cpu           time.Duration
	cpuKnown      bool
	objects, size uint64 // allocated
}

func use() usage {
	ms := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(ms)
	u := usage{objects: ms[0].Value.Uint64(), size: ms[1].Value.Uint64()}
	u.cpu, u.cpuKnown = cpuTime()
	return u
}

// perMessage puts into f what was used since before for each of n messages.
func (u usage) perMessage(before usage, n int64, f *Figures) {
	if n == 0 {
		return
	}
	each := func(d float64) *float64 { d /= float64(n); return &d }
	if u.cpuKnown && before.cpuKnown {
		f.CPU = each(float64(u.cpu - before.cpu))
	}
	f.Allocs = each(float64(u.objects - before.objects))
	f.AllocBytes = each(float64(u.size - before.size))
}
