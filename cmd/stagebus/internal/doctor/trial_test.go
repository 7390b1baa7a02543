package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/segmentio/kafka-go/protocol/listgroups"
	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/memory"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cluster is a Kafka in the process.
func cluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	settings := kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), settings}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

// answers makes a cluster answer one kind of request itself.
func answers(c *kfake.Cluster, key kmsg.Key, f func(kmsg.Request) kmsg.Response) {
	c.ControlKey(int16(key), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return f(q), nil, true
	})
}

func TestTrialKafka(t *testing.T) {
	_, at := cluster(t)
	r := examine(t, "kafka://"+at, Options{Messages: 3}, port(at, "PORT")...)
	if r.Status() != OK {
		t.Error(r.Status())
	}
	// Nothing is left.
	p, err := Parse("kafka://" + at)
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&exam{patient: p}).open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background()) //nolint:errcheck // it was only asked
	topics, err := b.Admin().List(t.Context())
	if err != nil || len(topics) != 0 {
		t.Errorf("topics %v, %v", topics, err)
	}
	if groups := groups(t, at); len(groups) != 0 {
		t.Errorf("groups %v", groups)
	}
}

// groups lists a cluster's consumer groups, as it is asked for by the exam's own connection.
func groups(t *testing.T, at string) []string {
	t.Helper()
	p, err := Parse("kafka://" + at)
	if err != nil {
		t.Fatal(err)
	}
	x := &exam{Options: Options{}.withDefaults(), patient: p}
	k := &kline{line: newLine(at)}
	defer k.close()
	if !x.enterKafka(t.Context(), k) {
		t.Fatal(x.report)
	}
	m, err := k.conn.RoundTrip(&listgroups.Request{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, g := range m.(*listgroups.Response).Groups {
		ids = append(ids, g.GroupID)
	}
	return ids
}

func TestTrialKafkaRefused(t *testing.T) {
	acl := func(kind kmsg.ACLResourceType, name string, ops ...kmsg.ACLOperation) []kfake.ACL {
		var all []kfake.ACL
		for _, op := range ops {
			all = append(all, kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Allow: true})
		}
		return all
	}
	topic := acl(kmsg.ACLResourceTypeTopic, "stagebus.doctor", kmsg.ACLOperationAll)
	for name, c := range map[string]struct {
		opts   []kfake.Opt
		change func(*kfake.Cluster)
		login  string
		status Status
		heals  bool
	}{
		"topic": {opts: []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "me", "hunter2")}, login: "me:hunter2@", status: Fail},
		"group": {opts: []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "me", "hunter2", topic...)}, login: "me:hunter2@", status: Fail},
		"replication": {change: func(c *kfake.Cluster) {
			answers(c, kmsg.CreateTopics, func(q kmsg.Request) kmsg.Response {
				a := q.ResponseKind().(*kmsg.CreateTopicsResponse)
				for _, topic := range q.(*kmsg.CreateTopicsRequest).Topics {
					a.Topics = append(a.Topics, kmsg.CreateTopicsResponseTopic{Topic: topic.Topic, ErrorCode: 38})
				}
				return a
			})
		}, status: Fail},
		"policy": {change: func(c *kfake.Cluster) {
			answers(c, kmsg.CreateTopics, func(q kmsg.Request) kmsg.Response {
				a := q.ResponseKind().(*kmsg.CreateTopicsResponse)
				for _, topic := range q.(*kmsg.CreateTopicsRequest).Topics {
					a.Topics = append(a.Topics, kmsg.CreateTopicsResponseTopic{Topic: topic.Topic, ErrorCode: 44})
				}
				return a
			})
		}, status: Fail},
		"coordinator": {change: func(c *kfake.Cluster) {
			answers(c, kmsg.FindCoordinator, func(q kmsg.Request) kmsg.Response {
				a := q.ResponseKind().(*kmsg.FindCoordinatorResponse)
				a.ErrorCode = 15
				for _, key := range q.(*kmsg.FindCoordinatorRequest).CoordinatorKeys {
					a.Coordinators = append(a.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: key, ErrorCode: 15})
				}
				return a
			})
		}, status: Fail, heals: true},
		"replicas": {change: func(c *kfake.Cluster) {
			answers(c, kmsg.Produce, func(q kmsg.Request) kmsg.Response {
				a := q.ResponseKind().(*kmsg.ProduceResponse)
				for _, topic := range q.(*kmsg.ProduceRequest).Topics {
					at := kmsg.ProduceResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
					for _, p := range topic.Partitions {
						at.Partitions = append(at.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: 19, BaseOffset: -1, LogStartOffset: -1})
					}
					a.Topics = append(a.Topics, at)
				}
				return a
			})
		}, status: Fail, heals: true},
		"clean up": {change: func(c *kfake.Cluster) {
			answers(c, kmsg.DeleteTopics, func(q kmsg.Request) kmsg.Response {
				a := q.ResponseKind().(*kmsg.DeleteTopicsResponse)
				for _, topic := range q.(*kmsg.DeleteTopicsRequest).TopicNames {
					a.Topics = append(a.Topics, kmsg.DeleteTopicsResponseTopic{Topic: kmsg.StringPtr(topic), ErrorCode: 29})
				}
				return a
			})
		}, status: Warn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, at := cluster(t, c.opts...)
			if c.change != nil {
				c.change(cl)
			}
			o := Options{Messages: 3}
			if c.heals { // found out when the time is over
				o.Timeout = time.Second
			}
			r := examine(t, "kafka://"+c.login+at, o, port(at, "PORT")...)
			if r.Status() != c.status || c.status == Fail && r.heals() != c.heals {
				t.Errorf("status %s, heals %v", r.Status(), r.heals())
			}
		})
	}
}

func TestTrialMemory(t *testing.T) {
	const address = "memory://doctor-trial"
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b, err := memory.Open(u, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background()) //nolint:errcheck // memory
	if r := examine(t, address, Options{}); r.Status() != OK {
		t.Error(r.Status())
	}
	if topics, err := b.Admin().List(t.Context()); err != nil || len(topics) != 0 {
		t.Errorf("topics %v, %v", topics, err)
	}
}

// The clock of a broker that is ahead or behind.
func TestClock(t *testing.T) {
	_, at := cluster(t)
	for name, c := range map[string]struct {
		ours   time.Duration
		status Status
	}{"ahead": {-2 * time.Hour, Fail}, "behind": {90 * time.Second, Fail}, "a little": {10 * time.Second, Warn}} {
		t.Run(name, func(t *testing.T) {
			w := world{now: func() time.Time { return time.Now().Add(c.ours) }}
			r := examine(t, "kafka://"+at, Options{Messages: 3, world: w}, port(at, "PORT")...)
			if r.Status() != c.status || r.heals() && c.status == Fail {
				t.Error(r.Status())
			}
		})
	}
}

func TestJudgeClock(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		f    finding
		want Status
		says string
	}{
		{judgeClock(5*time.Millisecond, 10*time.Millisecond), OK, "agree, give or take 10 ms"},
		{judgeClock(-500*time.Millisecond, 10*time.Millisecond), OK, "500 ms behind"},
		{judgeClock(3*time.Second, 10*time.Millisecond), Warn, "3.0 s ahead of"},
		{judgeClock(-time.Hour, 10*time.Millisecond), Fail, "1h0m0s behind"},
		{within(1000, at, at.Add(time.Millisecond)), OK, "agree"},
		{within(999, at, at.Add(time.Millisecond)), OK, "agree"}, // a second that has just ended
		{within(990, at, at.Add(time.Millisecond)), Warn, "9.5 s behind"},
		{within(1003, at, at.Add(time.Millisecond)), Warn, "3.5 s ahead"},
		{within(2000, at, at.Add(time.Millisecond)), Fail, "ahead"},
	} {
		if said := c.f.detail + c.f.cause; c.f.status != c.want || !strings.Contains(said, c.says) {
			t.Errorf("%s %q, want %s %q", c.f.status, said, c.want, c.says)
		}
		if (c.f.do == "") != (c.want == OK) {
			t.Errorf("%s: do %q", c.f.status, c.f.do)
		}
	}
}

func TestDeathOf(t *testing.T) {
	when := time.Unix(1000, 0)
	if got, ok := deathOf(amqp091.Table{"x-death": []any{amqp091.Table{"time": when, "reason": "expired"}}}); !ok || !got.Equal(when) {
		t.Error(got, ok)
	}
	for _, h := range []amqp091.Table{nil, {"x-death": "yes"}, {"x-death": []any{}}, {"x-death": []any{"x"}}, {"x-death": []any{amqp091.Table{}}}} {
		if _, ok := deathOf(h); ok {
			t.Errorf("%v has no time", h)
		}
	}
}

// What RabbitMQ refuses, and that it is blocked.
func TestTroubleAMQP(t *testing.T) {
	u, err := url.Parse("amqp://me:hunter2@h/v")
	if err != nil {
		t.Fatal(err)
	}
	o, err := amqp.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	x := &exam{patient: &Patient{amqp: &o, url: u, name: "amqp://h/v"}, name: "t"}
	refused := &amqp091.Error{Code: 403, Reason: "ACCESS_REFUSED - configure access to queue 't' in vhost 'v' refused for user 'me'", Server: true}
	var b bytes.Buffer
	for _, c := range []struct {
		blocked string
		err     error
	}{
		{"", &stagebus.Error{Op: "declare", Kind: stagebus.ErrAuth, Cause: refused, Do: "check the user's permissions"}},
		{"low on memory", context.DeadlineExceeded},
		{"low on disk", context.DeadlineExceeded},
		{"tired", context.DeadlineExceeded},
		{"", &stagebus.Error{Op: "declare", Kind: stagebus.ErrUnavailable, Cause: errors.New("gone"), Do: "is the broker running and reachable?"}},
		{"", context.DeadlineExceeded},
	} {
		bl := &watcher{}
		if c.blocked != "" {
			bl.hook(stagebus.Event{Kind: stagebus.EventConnected})
			bl.hook(stagebus.Event{Kind: stagebus.EventBlocked, Err: errors.New(c.blocked)})
		}
		f := x.trouble(trial{refused: x.amqpRights}, bl, "make the topic t", c.err)
		fmt.Fprintf(&b, "%s\n  do: %s\n  heals: %v\n", f.cause, f.do, f.heals)
		bl.hook(stagebus.Event{Kind: stagebus.EventUnblocked})
		if why, _ := bl.seen(); why != "" {
			t.Errorf("still blocked: %s", why)
		}
	}
	want := `the user me may not make the topic t: ACCESS_REFUSED - configure access to queue 't' in vhost 'v' refused for user 'me'
  do: rabbitmqctl set_permissions -p v me '.*' '.*' '.*' (what may be configured, written, read; narrower: '^stagebus.*')
  heals: false
the broker takes no messages for now (low on memory)
  do: consume what is queued, or give it more memory: vm_memory_high_watermark in rabbitmq.conf (rabbitmqctl set_vm_memory_high_watermark 0.6 until it restarts)
  heals: true
the broker takes no messages for now (low on disk)
  do: free space on the broker's disk, or lower disk_free_limit in rabbitmq.conf (rabbitmqctl set_disk_free_limit 50MB until it restarts)
  heals: true
the broker takes no messages for now (tired)
  do: see its alarms: rabbitmq-diagnostics alarms
  heals: true
can't make the topic t: broker unavailable: gone
  do: is the broker running and reachable?
  heals: true
can't make the topic t: context deadline exceeded
  do: see the broker's log
  heals: true
`
	if b.String() != want {
		t.Errorf("got\n%s", &b)
	}
}
