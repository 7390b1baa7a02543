package integration

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/integration/broker"
	"github.com/stagebus/stagebus/pipeline"
)

// TestPipelineRestarts ends the broker under a running stage, in order and by SIGKILL, and starts it again: the stage goes on by itself, with the
// same books as in TestPipeline, but that a send which was uncertain may double.
func TestPipelineRestarts(t *testing.T) {
	if os.Getenv("STAGEBUS_LONG") == "" {
		t.Skip("takes a minute: set STAGEBUS_LONG")
	}
	for _, kind := range []broker.Kind{broker.Kafka, broker.AMQP} {
		t.Run(string(kind), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			inst := broker.Private(t, kind)
			l := newLine(ctx, t, inst.URL())
			l.requeuesLast = kind == broker.AMQP
			read := make(chan struct{})
			go func() {
				defer close(read)
				l.read(ctx, t, l.outReader, l.noteOutput)
			}()
			defer func() {
				cancel()
				<-read
			}()

			in := l.consumer(ctx, t, l.in)
			pause, goOn := make(chan struct{}), make(chan struct{})
			running, stop := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() {
				ended <- pipeline.Run(running, pipeline.Stage{
					Name: "line", Consumer: in, Producer: l.producer, Workers: 4, Hook: l.noteEvent,
					Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
						if n, first := l.begin(d); first && (n == l.total/3 || n == l.total*2/3) {
							pause <- struct{}{}
							<-goOn
						}
						return []stagebus.Message{{Topic: l.out, Key: d.Key, Body: d.Body, ID: d.ID}}, stagebus.Done
					},
				})
			}()
			for _, end := range []func(context.Context) error{inst.Stop, inst.Kill} {
				select {
				case <-pause:
				case err := <-ended:
					t.Fatalf("the stage ended: %v", err)
				}
				err := end(ctx)
				goOn <- struct{}{} // what was handled is sent while the broker is away
				if err := errors.Join(err, inst.Start(ctx)); err != nil {
					t.Fatal(err)
				}
				l.noteCut()
			}
			select {
			case <-l.all:
			case err := <-ended:
				t.Fatalf("the stage ended: %v", err)
			}
			stop()
			if err := errors.Join(<-ended, in.Close(ctx)); err != nil {
				t.Error(err)
			}
			l.finish(ctx, t)
			<-read
			l.check(t)
		})
	}
}
