//go:build !linux

package main

import (
	"context"
	"io"
)

// pipe is not known to work on other systems: what has been written counts as taken.
type pipe struct{}

func newPipe(io.Writer) *pipe { return nil }

func (*pipe) taken(context.Context) error { return nil }
