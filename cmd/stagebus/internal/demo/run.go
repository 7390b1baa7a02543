// Package demo is an LLM system in small, from a text to answers, whose parts only meet through topics: preprocessing, training by two
// workers that exchange parameters and gradients, deployment to two inference workers, answers as streams of tokens, and post-processing.
// It runs in one process or in six, over any broker, and checks what it claims.
package demo

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
)

// Options configure a run. Connect, Meter, Prefix, Text, Size and Seed are required.
type Options struct {
	// Connect opens a connection; each stage has its own. All must lead to the same broker, and count on Meter.
	Connect func(context.Context) (*stagebus.Broker, error)
	// Scheme is that of the broker's URL.
	Scheme string
	Meter  *meter.Meter
	// Prefix begins the names of all topics and groups. Processes of one run have the same.
	Prefix string
	// Stage is the one of [Stages] to run; empty: all of them.
	Stage string
	Text  Text
	Size  Size
	Seed  uint64
	// Prompts are to be answered; none: beginnings of held-out sentences.
	Prompts []string
	// Chaos kills both training workers on the way, and compares the result with that of a run without such accidents.
	Chaos bool
	// Keep leaves the topics on the broker.
	Keep bool
	// Note and Progress are told what happens, as it happens. They are called from several goroutines. Nil is fine.
	Note     func(string)
	Progress func(Progress)
	// CleanUp is called before topics are removed: what adapters say from then on is of no interest. Nil is fine.
	CleanUp func()

	process string
}

func (o *Options) notef(format string, args ...any) {
	if o.Note != nil {
		o.Note(fmt.Sprintf(format, args...))
	}
}

// run is one run of all stages, or of one.
type run struct {
	o       Options
	chaos   bool
	collect *collector
	killed  counter
}

// Run runs the demo and returns what it came to; its claims say whether they hold. With a stage other than the last one the summary is nil. An
// error means that it didn't come to an end. Whatever happens, topics are removed by who runs the last stage, unless Keep is set.
func Run(ctx context.Context, o Options) (*Summary, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	o.process = hex.EncodeToString(id[:])
	if !o.Chaos {
		return o.once(ctx, false)
	}
	prefix := o.Prefix
	o.Prefix = prefix + ".calm"
	o.notef("an undisturbed run first, to compare with")
	calm, err := o.once(ctx, false)
	if err != nil {
		return calm, err
	}
	o.Prefix = prefix + ".chaos"
	o.notef("the same again, and both training workers are killed on the way")
	s, err := o.once(ctx, true)
	if err != nil {
		return s, err
	}
	s.Calm = calm.Trained.Digest
	s.Claims = append(s.Claims, s.same(trainers))
	return s, nil
}

func (o Options) once(ctx context.Context, chaos bool) (s *Summary, err error) {
	r := &run{o: o, chaos: chaos, collect: newCollector(&o)}
	if o.Stage != "" && o.Stage != postprocess {
		return nil, cmp.Or(r.stage(ctx, o.Stage, nil), context.Cause(ctx))
	}
	began := time.Now()
	b, err := o.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.cleanUp(b)) }()
	// On RabbitMQ a process can remove the groups that it has declared, and needs the management API for others.
	ready, cancel := context.WithTimeout(ctx, declareTime)
	defer cancel()
	if err := declare(ready, b, o.Prefix); err != nil {
		return nil, err
	}
	if o.Stage != "" {
		err = r.stage(ctx, o.Stage, nil)
	} else {
		err = r.stages(ctx)
	}
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	return r.summary(time.Since(began)), nil
}

// stages runs all of them at the same time.
func (r *run) stages(ctx context.Context) error {
	accidents := r.accidents()
	var fs []func(context.Context) error
	for _, name := range Stages {
		fs = append(fs, func(ctx context.Context) error { return r.survive(ctx, name, accidents[name]) })
	}
	return all(ctx, fs...)
}

// stage runs one of them until the end of the run, or of parent, which is no error.
func (r *run) stage(parent context.Context, name string, a *accident) error {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	s, err := r.o.open(ctx, name)
	if err != nil {
		if parent.Err() != nil {
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	s.stop = stop
	if a != nil {
		a.kill = func() {
			stop(errKilled)
			now, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.b.Close(now) // it is the accident that nothing is waited for
		}
	}
	if name != postprocess {
		err = s.send(ctx, s.json(topicReports, kindReport, Report{Stage: name, Started: true}))
	}
	if err == nil {
		err = r.play(ctx, s, a)
	} else if ctx.Err() != nil {
		err = nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errKilled):
		return errKilled
	case err != nil, errors.Is(cause, errEnd), parent.Err() != nil:
	default:
		err = cause // of s.fail
	}
	return errors.Join(err, s.farewell(r, err, parent.Err() != nil), s.close())
}

// play is what a stage does between its beginning and its end.
func (r *run) play(ctx context.Context, s *stage, a *accident) error {
	switch s.name {
	case preprocess:
		return all(ctx, s.preprocess, s.listen)
	case train1:
		return all(ctx, func(ctx context.Context) error { return s.train(ctx, 0, a) }, s.listen)
	case train2:
		return all(ctx, func(ctx context.Context) error { return s.train(ctx, 1, a) }, s.listen)
	case infer1, infer2:
		return all(ctx, s.infer, s.listen)
	case postprocess:
		return s.postprocess(ctx, r.collect)
	}
	return &stagebus.InvalidError{Field: "stage", Value: s.name, Reason: fmt.Sprintf("it is one of %v", Stages)}
}

// listen waits for the end.
func (s *stage) listen(ctx context.Context) error {
	return s.serve(ctx, work{reader: control(s.name), prefetch: 1, handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
		if err := only(d, kindEnd); err != nil {
			return refuse(err)
		}
		s.stop(errEnd)
		return done()
	}})
}

// farewell tells others how the stage ended: what it counted, or that it failed. The last stage, if it is stopped early, ends the others. err
// is what it failed of.
func (s *stage) farewell(r *run, err error, stopped bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	switch {
	case s.name == postprocess && (err != nil || stopped) && r.o.Stage != "":
		// The others would wait for ever. What keeps them from hearing it has been said already.
		_ = r.collect.abort(s)
		return nil
	case s.name == postprocess, stopped:
		return nil
	case err != nil && r.o.Stage == "":
		return nil // the others end with it
	case err != nil:
		_ = s.send(ctx, s.json(topicReports, kindReport, Report{Stage: s.name, Failed: err.Error()}))
		return nil
	}
	return s.send(ctx, s.json(topicReports, kindReport, Report{Stage: s.name, Ended: &Ended{s.o.process, s.o.Meter.Topics(), s.duplicates.get()}}))
}

// cleanUp removes what the run has made.
func (r *run) cleanUp(b *stagebus.Broker) error {
	ctx, cancel := context.WithTimeout(context.Background(), declareTime)
	defer cancel()
	if r.o.CleanUp != nil {
		r.o.CleanUp()
	}
	var err error
	if !r.o.Keep {
		for _, t := range slices.Backward(topics) {
			if e := b.Admin().Delete(ctx, r.o.topic(t)); e != nil && !errors.Is(e, stagebus.ErrNotFound) {
				err = errors.Join(err, e)
			}
		}
	}
	return errors.Join(err, b.Close(ctx))
}
