package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
)

// logger takes kfake's log. What kfake warns of is mostly the course of things (a member that is late); what it couldn't write is
// not, and is an error here: the client may have got its acknowledgement.
type logger struct {
	to      *slog.Logger
	closing atomic.Bool
	lost    atomic.Bool // something couldn't be written

	mu   sync.Mutex // protects the following
	errs []error    // of Close
}

// Logf implements kfake.Logger.
func (l *logger) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level == kfake.LogLevelError, level == kfake.LogLevelWarn && unwritten(format):
		to = slog.LevelError
	case level == kfake.LogLevelWarn, level == kfake.LogLevelInfo:
		to = slog.LevelInfo
	}
	if to == slog.LevelError {
		l.lost.Store(true)
	}
	if to == slog.LevelError && l.closing.Load() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.errs = append(l.errs, fmt.Errorf(format, args...))
		return
	}
	if l.to.Enabled(context.Background(), to) {
		l.to.Log(context.Background(), to, fmt.Sprintf(format, args...))
	}
}

// unwritten tells whether a warning is about files.
func unwritten(format string) bool {
	for _, s := range []string{"persist", "compact ", "delete topic"} {
		if strings.HasPrefix(format, s) {
			return true
		}
	}
	return false
}

func (l *logger) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
