package doctor

import (
	"context"
	"time"
)

// The pauses between two looks while waiting: short, since a broker that starts is the usual reason, and it is wanted at once.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Wait is Check again and again until nothing fails, for at most the given time. It ends at once where waiting is no use, as with a
// wrong password. told is called with what failed each time that it is something else than before. The report is that of the
// last look which was finished in time.
func Wait(ctx context.Context, p *Patient, o Options, within time.Duration, told func(Step)) Report {
	return wait(ctx, within, func(ctx context.Context) Report { return Check(ctx, p, o) }, told)
}

func wait(ctx context.Context, within time.Duration, look func(context.Context) Report, told func(Step)) Report {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last Report
	var said string
	for pause, n := firstPause, 0; ; pause, n = min(2*pause, lastPause), n+1 {
		bound := limited
		if n == 0 {
			bound = ctx // there is always one whole look
		}
		r := look(bound)
		failed := r.Failed()
		if n > 0 && limited.Err() != nil && len(failed) > 0 {
			return last // broken off in the middle
		}
		last = r
		if len(failed) == 0 || !r.heals() {
			return r
		}
		if s := failed[0]; s.Cause != said {
			said = s.Cause
			told(s)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-limited.Done():
			t.Stop()
			return last
		}
	}
}
