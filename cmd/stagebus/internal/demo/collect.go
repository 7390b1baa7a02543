package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
)

// Report is what a stage has to say of itself. One of its fields but Stage is set.
type Report struct {
	Stage    string    `json:"stage"`
	Started  bool      `json:"started,omitempty"`
	Trained  *Trained  `json:"trained,omitempty"`
	Deployed *Deployed `json:"deployed,omitempty"`
	Ended    *Ended    `json:"ended,omitempty"`
	Failed   string    `json:"failed,omitempty"`
}

// Ended is what a stage leaves behind when it ends.
type Ended struct {
	Process    string        `json:"process"` // stages of one process count their messages together
	Topics     []meter.Topic `json:"topics"`
	Duplicates int           `json:"duplicates"`
}

// How long the last stage waits for the others' last words: at the end, and when it is stopped before.
const (
	lastWords      = 20 * time.Second
	lastWordsEarly = 5 * time.Second
)

// missingAfter is how long stages may take to start before it is said which have not.
const missingAfter = 10 * time.Second

// collector gathers what there is to show of a run.
type collector struct {
	o *Options

	mu       sync.Mutex // protects the following
	trained  *Trained
	deployed map[string]Deployed
	answers  map[int]Answer
	started  map[string]bool
	ended    map[string]Ended
	complete chan struct{} // closed when all but the ends are there

	changed chan struct{} // a stage has started or ended; capacity 1
}

func newCollector(o *Options) *collector {
	return &collector{
		o: o, deployed: map[string]Deployed{}, answers: map[int]Answer{}, ended: map[string]Ended{},
		started: map[string]bool{}, complete: make(chan struct{}), changed: make(chan struct{}, 1),
	}
}

func (c *collector) handle(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
	var err error
	switch d.Type {
	case typePrefix + kindProgress:
		var p Progress
		if err = json.Unmarshal(d.Body, &p); err == nil && c.o.Progress != nil {
			c.o.Progress(p)
		}
	case typePrefix + kindAnswer:
		var a Answer
		if err = json.Unmarshal(d.Body, &a); err == nil {
			c.answer(a)
		}
	default:
		if err = only(d, kindReport); err != nil {
			break
		}
		var r Report
		if err = json.Unmarshal(d.Body, &r); err == nil {
			c.report(r)
		}
	}
	if err != nil {
		return refuse(err)
	}
	return done()
}

func (c *collector) answer(a Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.answers[a.ID]; !again {
		c.answers[a.ID] = a
	}
	c.look()
}

func (c *collector) report(r Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Trained != nil:
		c.trained = r.Trained
	case r.Deployed != nil:
		c.deployed[r.Deployed.Worker] = *r.Deployed
		c.o.notef("%s uses the parameters %.12s", r.Deployed.Worker, r.Deployed.Digest)
	case r.Started:
		c.started[r.Stage] = true
		c.signal()
	case r.Ended != nil:
		c.ended[r.Stage] = *r.Ended
		c.signal()
	case r.Failed != "":
		c.o.notef("%s failed: %s; start it again, or stop the others", r.Stage, r.Failed)
		delete(c.started, r.Stage)
		c.signal()
	}
	c.look()
}

// look closes what has been reached. c.mu is held.
func (c *collector) look() {
	if c.trained != nil && len(c.answers) >= c.trained.Prompts && len(c.deployed) == 2 {
		closeOnce(c.complete)
	}
}

func (c *collector) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// end waits until all is there, has the others end, waits for their last words, and ends the stage.
func (c *collector) end(ctx context.Context, s *stage) error {
	missing := time.NewTimer(missingAfter)
	defer missing.Stop()
	for waiting := true; waiting; {
		select {
		case <-c.complete:
			waiting = false
		case <-missing.C:
			c.missing()
		case <-ctx.Done():
			return nil
		}
	}
	if err := s.send(ctx, s.message(topicControl, kindEnd)); err != nil {
		return err
	}
	all := Stages[:len(Stages)-1]
	if left := c.wait(ctx, lastWords, func() []string { return all }); len(left) > 0 && ctx.Err() == nil {
		return fmt.Errorf("%s: not a word that it ended, %v after it was told to", strings.Join(left, ", "), lastWords)
	}
	s.stop(errEnd)
	return nil
}

// wait waits until those stages have ended, and returns which have not.
func (c *collector) wait(ctx context.Context, most time.Duration, who func() []string) []string {
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		c.mu.Lock()
		left := slices.DeleteFunc(slices.Clone(who()), func(name string) bool { _, ended := c.ended[name]; return ended })
		c.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-c.changed:
		case <-late.C:
			return left
		case <-ctx.Done():
			return left
		}
	}
}

// last notes what the last stage, which tells nobody, leaves behind.
func (c *collector) last(s *stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[s.name] = Ended{Process: s.o.process, Duplicates: s.duplicates.get()}
}

// missing says which stages have not started.
func (c *collector) missing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(Stages[:len(Stages)-1]), func(name string) bool { return c.started[name] })
	if len(left) > 0 {
		c.o.notef("still waiting for %s to start, with --prefix %s and the same broker", strings.Join(left, ", "), c.o.Prefix)
	}
}

// abort ends the others before the end, and waits for those that have said that they started, so that no topic is taken from under them.
func (c *collector) abort(s *stage) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := s.send(ctx, s.message(topicControl, kindEnd)); err != nil {
		return err
	}
	return all(ctx,
		func(ctx context.Context) error {
			return s.serve(ctx, work{reader: readerNamed("collect"), handle: c.handle, prefetch: 16})
		},
		func(context.Context) error {
			defer cancel()
			c.wait(ctx, lastWordsEarly, func() []string { return slices.Collect(maps.Keys(c.started)) })
			return nil
		},
	)
}
