package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
)

// outage is a producer whose broker goes away: the outcomes of each Submit are what its list says, then success. It notes what was sent.
type outage struct {
	mu    sync.Mutex
	errs  []error
	calls [][]string
	ids   map[string]string // of each body
}

func (o *outage) Submit(_ context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	os := make([]stagebus.Outcome, len(ms))
	var bodies []string
	for i, m := range ms {
		body := string(m.Body)
		bodies = append(bodies, body)
		if o.ids[body] == "" {
			o.ids[body] = m.ID
		}
		if m.ID == "" || m.ID != o.ids[body] {
			os[i].Err = fmt.Errorf("%q was sent with the id %q, then with %q", body, o.ids[body], m.ID)
		}
	}
	o.calls = append(o.calls, bodies)
	if len(o.errs) > 0 {
		for i := 1; i < len(os); i++ { // the first of each batch arrives
			os[i].Err = o.errs[0]
		}
		o.errs = o.errs[1:]
	}
	go done(os)
	return nil
}

func (o *outage) Close(context.Context) error { return nil }

// publishThrough sends four lines with a minute's patience.
func publishThrough(t *testing.T, ctx context.Context, p stagebus.Producer) (notes []string, published int, err error) {
	t.Helper()
	s := newSender(p)
	s.patience = time.Minute
	s.note = func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	s.run(ctx, &batcher{
		in: newLines("", strings.NewReader("1\n2\n3\n4\n"), 10, false), fill: func(*stagebus.Message) error { return nil }, copies: 1, stamp: true,
	})
	published, err = s.result()
	return notes, published, err
}

func TestResendGoesOnThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := fmt.Errorf("connection lost: %w", stagebus.ErrUncertain)
		o := &outage{errs: []error{lost, stagebus.ErrUnavailable}, ids: map[string]string{}}
		notes, n, err := publishThrough(t, t.Context(), o)
		if n != 4 || err != nil {
			t.Errorf("published %d, %v", n, err)
		}
		want := [][]string{{"1", "2", "3", "4"}, {"2", "3", "4"}, {"3", "4"}}
		if !slices.EqualFunc(o.calls, want, slices.Equal) {
			t.Errorf("sent %v, want %v", o.calls, want)
		}
		if len(notes) != 1 || notes[0] != "sending 3 messages again, for up to 1m0s: connection lost: uncertain: it may have arrived" {
			t.Errorf("%q", notes)
		}
	})
}

func TestResendEndsWithItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		o := &outage{errs: []error{stagebus.ErrUncertain}, ids: map[string]string{}}
		_, n, err := publishThrough(t, t.Context(), &stuck{o})
		if n != 1 || !errors.Is(err, stagebus.ErrUncertain) {
			t.Errorf("published %d, %v", n, err)
		}
		if d := time.Since(began); d < time.Minute || d > time.Minute+resendMost {
			t.Errorf("gave up after %v", d)
		}
	})
}

// stuck delivers the first message of the first batch, and nothing after it.
type stuck struct{ *outage }

func (p *stuck) Submit(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
	if len(p.calls) == 0 {
		return p.outage.Submit(ctx, ms, done)
	}
	os := slices.Repeat([]stagebus.Outcome{{Err: stagebus.ErrUncertain}}, len(ms))
	go done(os)
	return nil
}

func TestResendEndsWithASignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errInterrupted)
		defer cancel()
		began := time.Now()
		_, n, err := publishThrough(t, ctx, &stuck{&outage{errs: []error{stagebus.ErrUncertain}, ids: map[string]string{}}})
		if n != 1 || !errors.Is(err, stagebus.ErrUncertain) || !strings.Contains(err.Error(), "uncertain 3") {
			t.Errorf("published %d, %v", n, err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

// What the broker refuses is no outage.
func TestResendDoesNotInsist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{errs: []error{errors.Join(stagebus.ErrUncertain, stagebus.ErrRefused)}, ids: map[string]string{}}
		_, n, err := publishThrough(t, t.Context(), o)
		if n != 1 || !errors.Is(err, stagebus.ErrRefused) || len(o.calls) != 1 {
			t.Errorf("published %d in %v, %v", n, o.calls, err)
		}
	})
}
