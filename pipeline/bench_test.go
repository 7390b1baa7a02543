package pipeline_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/stagebus/stagebus/pipeline"
)

// BenchmarkRun compares stages with a bare loop that receives 256, calls the same handler, submits, and settles: an operation is one
// message in and one out, on memory.
func BenchmarkRun(b *testing.B) {
	const round = 1 << 15
	began := time.Now() // outputs have an ID and a time, or Run would stamp them, for 100 ns each
	bare := func(ctx context.Context, s pipeline.Stage) error {
		dst, ts := make([]stagebus.Delivery, 256), make([]stagebus.Token, 256)
		var ms []stagebus.Message
		for ctx.Err() == nil {
			n, err := s.Consumer.Receive(ctx, dst)
			if err != nil {
				return err
			}
			ms = ms[:0]
			for i := range dst[:n] {
				outs, _ := s.Handle(ctx, &dst[i])
				ms = append(ms, outs...)
				ts[i] = dst[i].Token
			}
			if len(ms) > 0 {
				if err := stagebus.Send(context.Background(), s.Producer, ms...); err != nil {
					return err
				}
			}
			if err := s.Consumer.Settle(context.Background(), stagebus.Done, ts[:n]...); err != nil {
				return err
			}
		}
		return nil
	}
	for _, keyed := range []bool{false, true} {
		for _, outputs := range []int{0, 1} {
			for _, c := range []struct {
				name    string
				workers int
				run     func(context.Context, pipeline.Stage) error
			}{{"bare", 1, bare}, {"run", 1, pipeline.Run}, {"run", 4, pipeline.Run}} {
				b.Run(fmt.Sprintf("keyed=%v/outputs=%d/%s/workers=%d", keyed, outputs, c.name, c.workers), func(b *testing.B) {
					br := newBroker(b, memory.Options{})
					fill, drain := producer(b, br), consumer(b, br, stagebus.ConsumerOptions{Topics: []string{"out"}, Prefetch: round})
					in := consumer(b, br, stagebus.ConsumerOptions{Prefetch: 1024})
					ms := make([]stagebus.Message, 256)
					for i := range ms {
						ms[i] = stagebus.Message{Topic: "in", Body: make([]byte, 100)}
						if keyed {
							ms[i].Key = fmt.Append(nil, "key of ", i)
						}
					}
					p := producer(b, br)
					b.ReportAllocs()
					b.ResetTimer()
					for done := 0; done < b.N; {
						b.StopTimer()
						n := min(round, (b.N-done+255)/256*256)
						for range n / 256 {
							check(b, stagebus.Send(b.Context(), fill, ms...))
						}
						ctx, stop := context.WithCancel(b.Context())
						var left atomic.Int64
						left.Store(int64(n))
						b.StartTimer()
						err := c.run(ctx, pipeline.Stage{
							Consumer: in, Producer: p, Workers: c.workers,
							Handle: func(_ context.Context, d *stagebus.Delivery) ([]stagebus.Message, stagebus.Verdict) {
								if left.Add(-1) == 0 {
									stop()
								}
								if outputs == 0 {
									return nil, stagebus.Done
								}
								return []stagebus.Message{{Topic: "out", Key: d.Key, Body: d.Body, ID: "given", Time: began}}, stagebus.Done
							},
						})
						b.StopTimer()
						check(b, err)
						stop()
						dst := make([]stagebus.Delivery, 1024)
						for got := 0; got < n*outputs; {
							k, err := drain.Receive(b.Context(), dst)
							check(b, err)
							ts := make([]stagebus.Token, k)
							for i := range ts {
								ts[i] = dst[i].Token
							}
							check(b, drain.Settle(b.Context(), stagebus.Done, ts...))
							got += k
						}
						done += n
						b.StartTimer()
					}
				})
			}
		}
	}
}
