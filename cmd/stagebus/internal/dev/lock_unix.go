//go:build unix

package dev

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes f for this process; the kernel gives it back when the process ends, however it ends. False: another has it.
func lock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
