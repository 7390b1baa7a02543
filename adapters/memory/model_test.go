package memory_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/memory"
)

// TestModel runs random scripts of sends, receives, verdicts, joins and leaves against what the contract promises:
//   - nothing is lost: in the end every message was settled with Done or Reject;
//   - a second delivery is marked by Redelivered or by its Attempt;
//   - first deliveries of a key keep its order within a lane;
//   - no more than Prefetch are held.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 300)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		runModel(t, script)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte("a script of any bytes: sends, receives, verdicts, joins and leaves"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 500 {
			runModel(t, script)
		}
	})
}

const modelPrefetch = 7

// model is what a script did so far.
type model struct {
	t       *testing.T
	b       *stagebus.Broker
	sent    int
	members []*modelMember
	seen    map[string]bool // by body: delivered
	settled map[string]int  // by body: Done or Reject that returned nil
	last    map[string]int  // by lane and key: the last first delivery
	epochs  map[stagebus.Lane]int
}

type modelMember struct {
	c    stagebus.Consumer
	open []stagebus.Delivery
}

func runModel(t *testing.T, script []byte) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{t: t, seen: map[string]bool{}, settled: map[string]int{}, last: map[string]int{}, epochs: map[stagebus.Lane]int{}}
		m.b = newBroker(t, memory.Options{}, stagebus.TopicSpec{Name: "t", Partitions: 3, Capacity: 1000})
		m.join()
		for i := 0; i+1 < len(script); i += 2 {
			m.step(script[i], int(script[i+1]))
		}
		m.finish()
	})
}

func (m *model) step(op byte, arg int) {
	member := m.members[arg%len(m.members)]
	switch op % 8 {
	case 0, 1:
		for range arg%5 + 1 {
			send(m.t, m.b, stagebus.Message{Topic: "t", Key: fmt.Append(nil, m.sent%4), Body: fmt.Append(nil, m.sent)})
			m.sent++
		}
	case 2, 3:
		m.receive(member, arg%9+1)
	case 4, 5:
		if len(member.open) > 0 {
			i := arg % len(member.open)
			v := []stagebus.Verdict{stagebus.Done, stagebus.Done, stagebus.Release, stagebus.Retry(time.Duration(arg) * time.Millisecond), stagebus.Reject("no")}[arg%5]
			d := member.open[i]
			member.open = append(member.open[:i], member.open[i+1:]...)
			m.settle(member, d, v)
		}
	case 6:
		if len(m.members) < 4 {
			m.join()
		} else {
			<-time.After(time.Duration(arg) * time.Millisecond) // of the bubble
		}
	case 7:
		if len(m.members) > 1 {
			check(m.t, member.c.Close(m.t.Context())) // what it holds comes again
			m.members = append(m.members[:arg%len(m.members)], m.members[arg%len(m.members)+1:]...)
		}
	}
}

func (m *model) join() {
	c := consumer(m.t, m.b, stagebus.ConsumerOptions{Topics: []string{"t"}, Prefetch: modelPrefetch, Drain: 50 * time.Millisecond})
	m.members = append(m.members, &modelMember{c: c})
}

// receive takes what is there now, if anything.
func (m *model) receive(member *modelMember, n int) int {
	dst := make([]stagebus.Delivery, n)
	n, err := member.c.Receive(newLastLook(m.t), dst)
	if err != nil {
		return 0
	}
	for _, d := range dst[:n] {
		body := string(d.Body)
		if m.seen[body] && !d.Redelivered && d.Attempt == 1 {
			m.t.Errorf("%s came twice and isn't marked", body)
		}
		if !d.Redelivered && d.Attempt == 1 {
			var i int
			_, _ = fmt.Sscan(body, &i)
			if _, ok := m.epochs[d.Token.Lane]; !ok {
				m.epochs[d.Token.Lane] = len(m.epochs)
			}
			lane := fmt.Sprintf("%d %s", m.epochs[d.Token.Lane], d.Key)
			if last, ok := m.last[lane]; ok && i < last {
				m.t.Errorf("key %s: %d after %d in one lane", d.Key, i, last)
			}
			m.last[lane] = i
		}
		m.seen[body] = true
	}
	member.open = append(member.open, dst[:n]...)
	live := 0
	for _, d := range member.open {
		if d.Token.Lane.Context().Err() == nil {
			live++
		}
	}
	if live > modelPrefetch {
		m.t.Errorf("a member holds %d, its prefetch is %d", live, modelPrefetch)
	}
	return n
}

func (m *model) settle(member *modelMember, d stagebus.Delivery, v stagebus.Verdict) {
	live := d.Token.Lane.Context().Err() == nil
	err := member.c.Settle(m.t.Context(), v, d.Token)
	if (err == nil) != live {
		m.t.Errorf("settling %s of a lane that is live (%v): %v", d.Body, live, err)
	}
	if err == nil && (v.Kind == stagebus.KindDone || v.Kind == stagebus.KindReject) {
		m.settled[string(d.Body)]++
	}
}

// finish settles all that is left and checks that it was all.
func (m *model) finish() {
	for _, member := range m.members {
		check(m.t, member.c.Close(m.t.Context()))
	}
	m.members = nil
	m.join()
	last := m.members[0]
	for depth(m.t, m.b, "t", "default") > 0 && !m.t.Failed() {
		if m.receive(last, 10) == 0 {
			<-time.After(100 * time.Millisecond) // a retry is due by and by
		}
		for _, d := range last.open {
			m.settle(last, d, stagebus.Done)
		}
		last.open = nil
	}
	for i := range m.sent {
		if m.settled[fmt.Sprint(i)] == 0 {
			m.t.Errorf("message %d was lost", i)
		}
	}
}
