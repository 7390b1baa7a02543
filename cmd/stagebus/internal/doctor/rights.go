package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
)

// kafkaRights says which right, or which setting of the broker, was missing.
func (x *exam) kafkaRights(doing string, err error) (finding, bool) {
	entry := x.working[0]
	acl := func(operations, resource string) string {
		return fmt.Sprintf("kafka-acls --bootstrap-server %s --add --allow-principal '%s' %s %s %s --resource-pattern-type prefixed",
			entry, x.principal(), operations, resource, x.Prefix)
	}
	const docker = "and restart the broker (Docker: KAFKA_%s: 1)"
	var code kgo.Error
	if !errors.As(err, &code) {
		return finding{}, false
	}
	who := fmt.Sprintf("%s may not %s: %s", x.principal(), doing, code.Title())
	switch code {
	case kgo.TopicAuthorizationFailed, kgo.ClusterAuthorizationFailed:
		return wrong(who, acl("--operation Create --operation Delete --operation Describe --operation Read --operation Write", "--topic")), true
	case kgo.GroupAuthorizationFailed:
		return wrong(who+" (the consumer group "+x.name+")", acl("--operation Read --operation Delete", "--group")), true
	case kgo.InvalidReplicationFactor:
		return wrong(fmt.Sprintf("can't %s: default.replication.factor is more than there are brokers", doing),
			"set default.replication.factor=1 in server.properties of a single broker, "+fmt.Sprintf(docker, "DEFAULT_REPLICATION_FACTOR")), true
	case kgo.GroupCoordinatorNotAvailable:
		f := ill(fmt.Sprintf("can't %s: no broker coordinates groups; the topic __consumer_offsets can't be made while offsets.topic.replication.factor is more than there are brokers", doing),
			"wait if the broker has just started; on a single one set offsets.topic.replication.factor=1 in server.properties, "+fmt.Sprintf(docker, "OFFSETS_TOPIC_REPLICATION_FACTOR"))
		return f, true
	case kgo.NotEnoughReplicas, kgo.NotEnoughReplicasAfterAppend:
		return ill(fmt.Sprintf("can't %s: fewer replicas are in step than min.insync.replicas asks for", doing),
			"start the brokers that are down; on a single one set min.insync.replicas=1 in server.properties, "+fmt.Sprintf(docker, "MIN_INSYNC_REPLICAS")), true
	}
	return finding{}, false
}

// principal is who we are to Kafka's access control, with its default mapping.
func (x *exam) principal() string {
	o := x.patient.kafka
	switch {
	case o.SASL.User != "":
		return "User:" + o.SASL.User
	case o.TLS != nil && len(o.TLS.Certificates) > 0:
		if leaf, err := x509.ParseCertificate(o.TLS.Certificates[0].Certificate[0]); err == nil {
			return "User:" + leaf.Subject.String()
		}
	}
	return "User:ANONYMOUS"
}

// coordinator asks who coordinates the group. Until somebody does, a member waits to be let in, and isn't told why.
func (x *exam) coordinator(ctx context.Context, k *kline) error {
	defer bound(ctx, k.line.conn)()
	m, err := k.conn.RoundTrip(&findcoordinator.Request{Key: x.name})
	if err != nil {
		return nil // nothing is known then
	}
	if code := kgo.Error(m.(*findcoordinator.Response).ErrorCode); code != 0 {
		return code
	}
	return nil
}

// deleteGroup removes the place of the group that the round trip used.
func (x *exam) deleteGroup(ctx context.Context) error {
	o := x.patient.kafka
	m, err := x.mechanism()
	if err != nil {
		return err // the login has used it
	}
	transport := &kgo.Transport{TLS: o.TLS, SASL: m, ClientID: o.ClientID, DialTimeout: x.Timeout, MetadataTopics: []string{}}
	defer transport.CloseIdleConnections()
	c := &kgo.Client{Addr: kgo.TCP(x.working...), Transport: transport, Timeout: x.Timeout}
	for {
		r, err := c.DeleteGroups(ctx, &kgo.DeleteGroupsRequest{GroupIDs: []string{x.name}})
		if err != nil {
			return err
		}
		switch code := r.Errors[x.name]; {
		case code == nil, errors.Is(code, kgo.GroupIdNotFound), errors.Is(code, kgo.GroupAuthorizationFailed), errors.Is(code, kgo.GroupCoordinatorNotAvailable):
			return nil // without the right to delete it, the broker forgets it in a week (offsets.retention.minutes)
		case !errors.Is(code, kgo.NonEmptyGroup):
			return code
		}
		t := time.NewTimer(100 * time.Millisecond) // a member's goodbye is on its way
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
