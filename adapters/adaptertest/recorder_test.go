package adaptertest_test

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stagebus/stagebus/adapters/adaptertest"
)

// recorder is a testing.TB that notes failures and passes none on, so that a case may fail where it should. The embedded one
// is there for the method that no other package can write; all that a case may call is overridden.
type recorder struct {
	testing.TB
	mu       sync.Mutex // protects the following
	failures []string
	failed   bool
	cleanups []func()
}

// failures runs a case against an adapter and returns what it has to say against it; nothing if it passes.
func failures(t *testing.T, c adaptertest.Case, h adaptertest.Harness) []string {
	t.Helper()
	r := &recorder{TB: t}
	ended := make(chan struct{})
	go func() { // its own, to be ended by FailNow
		defer close(ended)
		defer r.cleanup()
		defer func() {
			if p := recover(); p != nil {
				r.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		c.Run(r, h)
	}()
	<-ended
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed && len(r.failures) == 0 {
		return []string{"failed without a word"}
	}
	return r.failures
}

func (r *recorder) cleanup() {
	for {
		r.mu.Lock()
		if len(r.cleanups) == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.mu.Unlock()
		f()
	}
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	r.failures = append(r.failures, strings.TrimSpace(s))
}

func (r *recorder) Fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) FailNow() {
	r.Fail()
	runtime.Goexit()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Log(...any)                {}
func (r *recorder) Logf(string, ...any)       {}
func (r *recorder) Error(a ...any)            { r.note(fmt.Sprintln(a...)) }
func (r *recorder) Errorf(f string, a ...any) { r.note(fmt.Sprintf(f, a...)) }
func (r *recorder) Fatal(a ...any)            { r.Error(a...); r.FailNow() }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); r.FailNow() }
func (r *recorder) Skip(a ...any)             { r.Fatal(slices.Concat([]any{"skipped: "}, a)...) }
func (r *recorder) Skipf(f string, a ...any)  { r.Fatalf("skipped: "+f, a...) }
func (r *recorder) SkipNow()                  { r.Fatal("skipped") }
