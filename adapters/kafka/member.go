package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// member is this consumer's place in its group. One goroutine runs it.
type member struct {
	c    *consumer
	k    *coordinator
	who  identity
	lead bool
	// counted are the partitions of all topics that the group reads, as the leader divided them.
	counted map[string]int
	owned   map[string][]int32
	last    identity // whose lanes there are
}

// errRejoin says that the member must join again, and why.
type errRejoin struct{ err error }

func (e *errRejoin) Error() string { return "rejoin: " + e.err.Error() }
func (e *errRejoin) Unwrap() error { return e.err }

// join becomes part of the next generation and returns what this member gets. It keeps trying until ctx ends or the
// broker says that it makes no sense.
func (m *member) join(ctx context.Context) (map[string][]int32, error) {
	var got map[string][]int32
	err := retry(ctx, func() error {
		for {
			a, err := m.joinOnce(ctx)
			got = a
			var again *errRejoin
			if !errors.As(err, &again) {
				return err
			}
			if e := sleep(ctx, 10*time.Millisecond); e != nil {
				return e
			}
		}
	})
	return got, err
}

func (m *member) joinOnce(ctx context.Context) (map[string][]int32, error) {
	n := &m.c.n
	topics := make([]string, 0, len(m.c.names))
	for t := range m.c.names {
		topics = append(topics, t)
	}
	sub := subscription{topics: topics, owned: m.owned, generation: m.who.generation}
	other := Sticky
	if n.Assignor == Sticky {
		other = Range
	}
	req := &joingroup.Request{
		GroupID: m.k.group, MemberID: m.who.member, GroupInstanceID: n.InstanceID, ProtocolType: protocolType,
		SessionTimeoutMS: int32(n.SessionTimeout.Milliseconds()), RebalanceTimeoutMS: int32(n.RebalanceTimeout.Milliseconds()),
		Protocols: []joingroup.RequestProtocol{
			{Name: string(n.Assignor), Metadata: sub.encode(n.Assignor)},
			{Name: string(other), Metadata: sub.encode(other)},
		},
	}
	// The answer comes when all members have joined, or their time is over.
	wait, cancel := context.WithTimeout(ctx, n.RebalanceTimeout+m.c.client.timeout)
	defer cancel()
	res, err := m.k.ask(wait, req, func(r protocol.Message) kgo.Error {
		j := r.(*joingroup.Response)
		if code := kgo.Error(j.ErrorCode); code != kgo.MemberIDRequired {
			return code
		}
		return 0
	})
	if err != nil {
		return nil, m.again(err)
	}
	j := res.(*joingroup.Response)
	if kgo.Error(j.ErrorCode) == kgo.MemberIDRequired {
		m.who.member = j.MemberID
		return nil, &errRejoin{kgo.MemberIDRequired}
	}
	m.who = identity{j.GenerationID, j.MemberID, n.InstanceID}
	m.lead = j.LeaderID == j.MemberID
	m.counted = nil

	sync := &syncgroup.Request{GroupID: m.k.group, GenerationID: m.who.generation, MemberID: m.who.member, GroupInstanceID: n.InstanceID}
	if m.lead {
		if sync.Assignments, err = m.divide(ctx, Assignor(j.ProtocolName), j.Members); err != nil {
			return nil, err
		}
	}
	wait, cancel = context.WithTimeout(ctx, n.RebalanceTimeout+m.c.client.timeout)
	defer cancel()
	res, err = m.k.ask(wait, sync, func(r protocol.Message) kgo.Error { return kgo.Error(r.(*syncgroup.Response).ErrorCode) })
	if err != nil {
		return nil, m.again(err)
	}
	got, err := decodeAssignment(res.(*syncgroup.Response).Assignments)
	if err != nil {
		return nil, m.c.client.fail("consume", m.k.group, fmt.Errorf("assignment of the group's leader: %w", err))
	}
	return got, nil
}

// again turns the answers that mean "join again" into errRejoin, with a new name where the old one is void.
func (m *member) again(err error) error {
	var code kgo.Error
	if !errors.As(err, &code) {
		return err
	}
	switch code {
	case kgo.UnknownMemberId:
		m.forget()
		return &errRejoin{err}
	case kgo.RebalanceInProgress, kgo.IllegalGeneration:
		return &errRejoin{err}
	}
	return err
}

// forget makes the member a new one.
func (m *member) forget() { m.who = identity{generation: -1, instance: m.c.n.InstanceID} }

// divide is the leader's work.
func (m *member) divide(ctx context.Context, name Assignor, members []joingroup.ResponseMember) ([]syncgroup.RequestAssignment, error) {
	infos := make([]memberInfo, 0, len(members))
	names := map[string]bool{}
	for _, r := range members {
		sub, err := decodeSubscription(r.Metadata, name)
		if err != nil {
			return nil, m.c.client.fail("consume", m.k.group, fmt.Errorf("subscription of member %q: %w", r.MemberID, err))
		}
		for _, t := range sub.topics {
			names[t] = true
		}
		infos = append(infos, memberInfo{id: r.MemberID, instance: r.GroupInstanceID, subscription: sub})
	}
	list := make([]string, 0, len(names))
	for t := range names {
		list = append(list, t)
	}
	found, err := m.c.d.refresh(ctx, list...)
	if err != nil {
		return nil, err
	}
	m.counted = map[string]int{}
	for _, t := range list {
		m.counted[t] = 0
		if f := found[t]; f != nil && f.err == 0 {
			m.counted[t] = len(f.leaders)
		}
	}
	var out []syncgroup.RequestAssignment
	for id, a := range assign(name, infos, m.counted) {
		out = append(out, syncgroup.RequestAssignment{MemberID: id, Assignment: encodeAssignment(a)})
	}
	return out, nil
}

// leave tells the group at once. A static member stays: it will be back.
func (m *member) leave(ctx context.Context) {
	if m.who.member == "" || m.c.n.InstanceID != "" {
		return
	}
	req := &leavegroup.Request{GroupID: m.k.group, Members: []leavegroup.RequestMember{{MemberID: m.who.member}}}
	_, err := m.k.ask(ctx, req, func(r protocol.Message) kgo.Error { return kgo.Error(r.(*leavegroup.Response).ErrorCode) })
	if err != nil && !errors.Is(err, kgo.UnknownMemberId) {
		// The group notices without us when the session is over.
		m.c.event(err)
	}
}
