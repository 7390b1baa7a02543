//go:build !unix

package kafka

import "net"

// hungUp can't be told here: a request on a connection that died while idle is uncertain.
func hungUp(net.Conn) bool { return false }
