package adaptertest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/adaptertest"
)

// TestLawOfPoorBroker runs the suite on a broker without any capability, as RabbitMQ is but for key order: that what is
// missing is refused is part of the law.
func TestLawOfPoorBroker(t *testing.T) {
	h := overMemory(func(d stagebus.Driver) stagebus.Driver { return &poor{d} })
	h.Expect = &stagebus.Capabilities{}
	h.Allocs = 0
	adaptertest.Run(t, h)
}

// TestCasesWithNeeds sees that each case that needs a capability says what its absence looks like, on both kinds of broker.
func TestCasesWithNeeds(t *testing.T) {
	full := stagebus.Capabilities{Replay: true, History: true, Partitions: true, KeyOrder: true, Transactions: true, Offsets: true, Tombstones: true, MaxMessage: 1}
	seen := map[string]bool{}
	needy := 0
	for _, c := range adaptertest.Cases() {
		if c.Name == "" || c.Proves == "" || seen[c.Name] {
			t.Errorf("case %q: no name of its own, or it proves nothing", c.Name)
		}
		seen[c.Name] = true
		if c.Needs == nil {
			continue
		}
		needy++
		if !c.Needs(full) || c.Needs(stagebus.Capabilities{}) {
			t.Errorf("case %q needs no capability", c.Name)
		}
	}
	if needy < 7 {
		t.Errorf("%d cases need a capability", needy)
	}
	if _, ok := adaptertest.Find("no such case"); ok {
		t.Error("Find found a case that doesn't exist")
	}
}

// poor is memory without capabilities.
type poor struct{ stagebus.Driver }

func (*poor) Capabilities() stagebus.Capabilities { return stagebus.Capabilities{} }

func (*poor) Tx(context.Context, stagebus.ProducerOptions, stagebus.ConsumerOptions) (stagebus.Tx, error) {
	return nil, stagebus.ErrUnsupported
}

// Admin declares the places of groups with their topic, since no group sees what was sent before it.
func (p *poor) Admin() stagebus.Admin {
	inner := p.Driver.Admin()
	return &faultyAdmin{Admin: inner, declare: func(ctx context.Context, s stagebus.TopicSpec) error {
		if strings.Contains(s.Name, "group.share") || strings.Contains(s.Name, "group.join") {
			s.Partitions = 2 // a queue has many readers, a partition has one
		}
		if err := inner.Declare(ctx, s); err != nil {
			return err
		}
		for _, g := range append([]string{stagebus.DefaultGroup}, s.Groups...) {
			if err := p.place(ctx, s.Name, g); err != nil {
				return err
			}
		}
		return nil
	}}
}

// place gives a group its position in a topic.
func (p *poor) place(ctx context.Context, topic, group string) error {
	c, err := p.Driver.Consumer(ctx, stagebus.ConsumerOptions{Topics: []string{topic}, Group: group, Prefetch: 1, PrefetchBytes: 1})
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

func (p *poor) Producer(ctx context.Context, o stagebus.ProducerOptions) (stagebus.Producer, error) {
	inner, err := p.Driver.Producer(ctx, o)
	if err != nil {
		return nil, err
	}
	return &faultyProducer{Producer: inner, submit: func(ctx context.Context, ms []stagebus.Message, done func([]stagebus.Outcome)) error {
		for i := range ms {
			if _, pinned := ms[i].Partition.Pinned(); pinned {
				errs := slices.Repeat([]error{stagebus.ErrNotSent}, len(ms))
				errs[i] = stagebus.ErrUnsupported
				return &stagebus.BatchError{Errs: errs}
			}
			if !o.Create {
				continue
			}
			if _, err := p.Driver.Admin().Describe(ctx, ms[i].Topic); errors.Is(err, stagebus.ErrNotFound) {
				if err := p.Admin().Declare(ctx, stagebus.TopicSpec{Name: ms[i].Topic}); err != nil {
					return err
				}
			}
		}
		return inner.Submit(ctx, ms, func(os []stagebus.Outcome) {
			for i := range os {
				os[i].Position.Offset = -1
			}
			done(os)
		})
	}}, nil
}

func (p *poor) Consumer(ctx context.Context, o stagebus.ConsumerOptions) (stagebus.Consumer, error) {
	if o.Mode == stagebus.Assigned || o.KeyOrder || o.Start.Kind != stagebus.StartDefault && o.Start.Kind != stagebus.StartLatest {
		return nil, stagebus.ErrUnsupported
	}
	if o.Mode == stagebus.Shared && !strings.HasSuffix(o.Topics[0], "--dlq") { // dead letters wait for their reader
		o.Start.Kind = stagebus.StartLatest
	}
	inner, err := p.Driver.Consumer(ctx, o)
	if err != nil {
		return nil, err
	}
	return &faultyConsumer{Consumer: inner, receive: func(ctx context.Context, dst []stagebus.Delivery) (int, error) {
		n, err := inner.Receive(ctx, dst)
		for i := range dst[:n] {
			dst[i].Position.Offset = -1
			if _, dead := dst[i].Headers.Get(stagebus.HeaderDeadOffset); dead {
				dst[i].Headers = slices.Clone(dst[i].Headers).Set(stagebus.HeaderDeadOffset, "-1")
			}
		}
		return n, err
	}}, nil
}
