//go:build unix

package kafka

import (
	"net"
	"syscall"
)

// hungUp reports whether the other side has closed c, without waiting and without taking a byte from it. An idle
// connection outlives its broker in the pool: found out before a request is written, the request can safely go elsewhere;
// found out afterwards, nobody knows what became of it.
func hungUp(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR
	})
	return gone || err != nil
}
