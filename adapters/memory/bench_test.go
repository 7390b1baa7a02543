package memory_test

import (
	"fmt"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// BenchmarkBatch sends, receives and settles batches through the whole of a Broker, on one goroutine.
func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 256} {
		for _, partitions := range []int{1, 8} {
			b.Run(fmt.Sprintf("batch=%d/partitions=%d", size, partitions), func(b *testing.B) {
				br := newBroker(b, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: partitions})
				p := producer(b, br, stagebus.ProducerOptions{})
				c := consumer(b, br, stagebus.ConsumerOptions{Topics: []string{"t"}, Prefetch: 1024})
				ms := make([]stagebus.Message, size)
				body := make([]byte, 100)
				for i := range ms {
					ms[i] = stagebus.Message{Topic: "t", Key: []byte{byte(i)}, Body: body}
				}
				dst, ts := make([]stagebus.Delivery, size), make([]stagebus.Token, size)
				ctx := b.Context()
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					check(b, stagebus.Send(ctx, p, ms...))
					for got := 0; got < size; {
						k, err := c.Receive(ctx, dst)
						check(b, err)
						for i := range k {
							ts[i] = dst[i].Token
						}
						check(b, c.Settle(ctx, stagebus.Done, ts[:k]...))
						got += k
					}
					n += size
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}

// BenchmarkPipe sends on one goroutine and receives on another.
func BenchmarkPipe(b *testing.B) {
	const size = 256
	br := newBroker(b, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 4})
	p := producer(b, br, stagebus.ProducerOptions{})
	c := consumer(b, br, stagebus.ConsumerOptions{Topics: []string{"t"}, Prefetch: 1024})
	ms := make([]stagebus.Message, size)
	for i := range ms {
		ms[i] = stagebus.Message{Topic: "t", Key: []byte{byte(i)}, Body: make([]byte, 100)}
	}
	received := make(chan error)
	ctx := b.Context()
	b.ReportAllocs()
	total := b.N * size
	go func() {
		dst, ts := make([]stagebus.Delivery, size), make([]stagebus.Token, size)
		for got := 0; got < total; {
			k, err := c.Receive(ctx, dst)
			for i := range k {
				ts[i] = dst[i].Token
			}
			if err == nil {
				err = c.Settle(ctx, stagebus.Done, ts[:k]...)
			}
			if err != nil {
				received <- err
				return
			}
			got += k
		}
		received <- nil
	}()
	for range b.N {
		check(b, stagebus.Send(ctx, p, ms...))
	}
	check(b, <-received)
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "msg/s")
}
