package doctor

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// looks are reports to give, one after the other; the last again and again.
type looks struct {
	reports []Report
	took    time.Duration
	n       int
}

func (l *looks) look(ctx context.Context) Report {
	t := time.NewTimer(l.took)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return Report{Steps: []Step{{Name: stepTCP, Status: Fail, Cause: "stopped", heals: true}}}
	}
	l.n++
	return l.reports[min(l.n, len(l.reports))-1]
}

func TestWait(t *testing.T) {
	fails := func(cause string, heals bool) Report {
		return Report{Steps: []Step{{Name: stepTCP, Status: Fail, Cause: cause, heals: heals}}}
	}
	good := Report{Steps: []Step{{Name: stepTCP, Status: OK}, {Name: stepClock, Status: Warn}}}
	for name, c := range map[string]struct {
		l      looks
		within time.Duration
		looked int
		told   []string
		status Status
		cause  string
		most   time.Duration
	}{
		"at once":     {looks{[]Report{good}, time.Millisecond, 0}, time.Minute, 1, nil, Warn, "", time.Second},
		"later":       {looks{[]Report{fails("refused", true), fails("refused", true), fails("mute", true), good}, time.Millisecond, 0}, time.Minute, 4, []string{"refused", "mute"}, Warn, "", 3 * time.Second},
		"no use":      {looks{[]Report{fails("refused", true), fails("password", false)}, time.Millisecond, 0}, time.Minute, 2, []string{"refused"}, Fail, "password", time.Second},
		"never":       {looks{[]Report{fails("refused", true)}, time.Millisecond, 0}, 20 * time.Second, 13, []string{"refused"}, Fail, "refused", 20 * time.Second},
		"slow":        {looks{[]Report{fails("first", true), fails("second", true)}, 6 * time.Second, 0}, 10 * time.Second, 1, []string{"first"}, Fail, "first", 10 * time.Second},
		"no time":     {looks{[]Report{fails("refused", true)}, time.Second, 0}, 0, 1, []string{"refused"}, Fail, "refused", time.Second},
		"slower good": {looks{[]Report{good}, time.Second, 0}, time.Millisecond, 1, nil, Warn, "", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var told []string
				r := wait(t.Context(), c.within, c.l.look, func(s Step) { told = append(told, s.Cause) })
				cause := ""
				if f := r.Failed(); len(f) > 0 {
					cause = f[0].Cause
				}
				if r.Status() != c.status || cause != c.cause || c.l.n != c.looked {
					t.Errorf("%s %q after %d looks", r.Status(), cause, c.l.n)
				}
				if len(told) != len(c.told) {
					t.Errorf("told %q, want %q", told, c.told)
				}
				for i := range min(len(told), len(c.told)) {
					if told[i] != c.told[i] {
						t.Errorf("told %q, want %q", told, c.told)
					}
				}
				if took := time.Since(began); took > c.most {
					t.Errorf("took %s, more than %s", took, c.most)
				}
			})
		})
	}
}

func TestWaitInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		l := looks{reports: []Report{{Steps: []Step{{Status: Fail, Cause: "refused", heals: true}}}}}
		began := time.Now()
		if r := wait(ctx, time.Hour, l.look, func(Step) {}); r.Status() != Fail || time.Since(began) != 3*time.Second {
			t.Error(r, time.Since(began))
		}
	})
}
