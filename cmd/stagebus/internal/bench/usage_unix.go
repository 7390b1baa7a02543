//go:build unix

package bench

import (
	"syscall"
	"time"
)

// cpuTime is the time that this process has had processors for, its own and the kernel's for it.
func cpuTime() (time.Duration, bool) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, false
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), true
}
