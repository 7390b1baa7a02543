package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

// answer is what a broker's error code asks for.
type answer uint8

const (
	final     answer = iota // no use in trying again
	retriable               // nothing was done; it may work in a moment, after a look at the metadata
	uncertain               // it may have been done
	oneOfMany               // some message of the batch is to blame
)

// produceAnswers classify the codes of produce; others are final.
//
// NOT_LEADER and UNKNOWN_TOPIC come in two cases that only the offset in the answer tells apart, see [classifyProduce].
var produceAnswers = map[kgo.Error]answer{
	kgo.UnknownTopicOrPartition:      retriable,
	kgo.LeaderNotAvailable:           retriable,
	kgo.NotLeaderForPartition:        retriable,
	kgo.BrokerNotAvailable:           retriable,
	kgo.ReplicaNotAvailable:          retriable,
	kgo.NotEnoughReplicas:            retriable,
	kgo.FencedLeaderEpoch:            retriable,
	kgo.UnknownLeaderEpoch:           retriable,
	kgo.RequestTimedOut:              uncertain,
	kgo.NetworkException:             uncertain,
	kgo.NotEnoughReplicasAfterAppend: uncertain,
	kgo.KafkaStorageError:            uncertain,
	kgo.Unknown:                      uncertain,
	kgo.MessageSizeTooLarge:          oneOfMany,
	kgo.RecordListTooLarge:           oneOfMany,
	kgo.InvalidMessage:               oneOfMany,
	kgo.InvalidTimestamp:             oneOfMany,
	kgo.InvalidRecord:                oneOfMany,
}

// classifyProduce says what an answer to produce means. A broker that appended a batch and lost the leadership before the
// other replicas had it answers NOT_LEADER as well, but with the offset it had given: that batch may survive, and sending
// it again may double it. (The second offset tells brokers that leave the first at zero when they refuse.)
func classifyProduce(code kgo.Error, baseOffset, logStart int64) answer {
	a := produceAnswers[code]
	if a == retriable && baseOffset >= 0 && logStart >= 0 {
		return uncertain
	}
	return a
}

// groupRetriable are the answers of a coordinator that is elsewhere or not ready yet.
func groupRetriable(code kgo.Error) bool {
	switch code {
	case kgo.GroupLoadInProgress, kgo.GroupCoordinatorNotAvailable, kgo.NotCoordinatorForGroup, kgo.RequestTimedOut,
		kgo.NetworkException, kgo.BrokerNotAvailable, kgo.UnknownTopicOrPartition, kgo.LeaderNotAvailable, kgo.NotLeaderForPartition:
		return true
	}
	return false
}

// lost says that the member is no longer, or never was, who it says.
func lost(code kgo.Error) bool {
	return code == kgo.IllegalGeneration || code == kgo.UnknownMemberId || code == kgo.FencedInstanceID
}

// kindOf finds the sentinel for a broker's code.
func kindOf(code kgo.Error) error {
	switch code {
	case kgo.SASLAuthenticationFailed, kgo.UnsupportedSASLMechanism, kgo.IllegalSASLState, kgo.TopicAuthorizationFailed,
		kgo.GroupAuthorizationFailed, kgo.ClusterAuthorizationFailed, kgo.SecurityDisabled:
		return stagebus.ErrAuth
	case kgo.UnknownTopicOrPartition, kgo.UnknownTopicID, kgo.GroupIdNotFound:
		return stagebus.ErrNotFound
	case kgo.TopicAlreadyExists:
		return stagebus.ErrConflict
	case kgo.InvalidTopic, kgo.InvalidPartitionNumber, kgo.InvalidReplicationFactor, kgo.InvalidConfiguration, kgo.InvalidRequest,
		kgo.InvalidSessionTimeout, kgo.InvalidGroupId, kgo.InconsistentGroupProtocol:
		return stagebus.ErrInvalid
	case kgo.MessageSizeTooLarge, kgo.RecordListTooLarge:
		return stagebus.ErrTooLarge
	case kgo.UnsupportedVersion, kgo.UnsupportedForMessageFormat, kgo.UnsupportedCompressionType:
		return stagebus.ErrUnsupported
	case kgo.BrokerNotAvailable, kgo.LeaderNotAvailable, kgo.NotLeaderForPartition, kgo.GroupLoadInProgress,
		kgo.GroupCoordinatorNotAvailable, kgo.NotCoordinatorForGroup, kgo.NotController, kgo.NetworkException, kgo.RequestTimedOut:
		return stagebus.ErrUnavailable
	}
	return stagebus.ErrRefused
}

// fail makes the adapter's error of anything that went wrong with a request: a broker's code, the network, the context.
func (c *client) fail(op, topic string, err error) error {
	if err == nil {
		return nil
	}
	var known *stagebus.Error
	var invalid *stagebus.InvalidError
	if errors.As(err, &known) || errors.As(err, &invalid) || errors.Is(err, stagebus.ErrClosed) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &stagebus.Error{Op: op, Broker: c.url, Topic: topic, Cause: err}
	var code kgo.Error
	var tlsAuthority x509.UnknownAuthorityError
	var tlsHost x509.HostnameError
	var tlsInvalid x509.CertificateInvalidError
	var tlsRecord tls.RecordHeaderError
	var remote *net.OpError
	var tlsCert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.As(err, &code):
		e.Kind, e.Do = kindOf(code), advice(code)
	case errors.As(err, &remote) && remote.Op == "remote error": // what crypto/tls makes of an alert
		e.Kind, e.Do = stagebus.ErrAuth, "TLS: the broker refused the handshake: give a client certificate that it trusts (certfile, keyfile)"
	case errors.As(err, &tlsHost):
		e.Kind, e.Do = stagebus.ErrUnavailable, "TLS: the certificate is for another host: connect by that name (server_name_indication)"
	case errors.As(err, &tlsAuthority), errors.As(err, &tlsCert), errors.As(err, &tlsInvalid):
		e.Kind, e.Do = stagebus.ErrUnavailable, "TLS: the broker's certificate is not trusted: name its authority's file (cacertfile)"
	case errors.As(err, &tlsRecord):
		e.Kind, e.Do = stagebus.ErrUnavailable, "TLS: that port doesn't speak it: use kafka:// or the TLS port"
	case errors.As(err, &dns):
		e.Kind, e.Do = stagebus.ErrUnavailable, "check the host's name"
	case strings.HasPrefix(c.url, "kafkas:") && errors.Is(err, io.EOF):
		e.Kind, e.Do = stagebus.ErrUnavailable, "TLS: the broker hung up: that port may not speak it (then it is kafka://)"
	default:
		e.Kind, e.Do = stagebus.ErrUnavailable, "check that Kafka runs there, that host and port are right, and whether it wants TLS (kafkas://) or a login (USER:PASSWORD@)"
	}
	return e
}

func advice(code kgo.Error) string {
	switch code {
	case kgo.SASLAuthenticationFailed:
		return "check user, password and auth_mechanism"
	case kgo.UnsupportedSASLMechanism:
		return "the broker doesn't offer that auth_mechanism: try plain, scram-sha-256 or scram-sha-512"
	case kgo.IllegalSASLState:
		return "the listener wants no login: use another port, or leave out the user"
	case kgo.TopicAuthorizationFailed:
		return "the user needs a right (ACL) on the topic: kafka-acls --add --topic … --operation Read, Write or Create --allow-principal User:…"
	case kgo.GroupAuthorizationFailed:
		return "the user needs a right (ACL) on the group: kafka-acls --add --group … --operation Read --allow-principal User:…"
	case kgo.ClusterAuthorizationFailed:
		return "the user needs a right (ACL) on the cluster: kafka-acls --add --cluster --operation … --allow-principal User:…"
	case kgo.UnknownTopicOrPartition:
		return "declare the topic, or check its name"
	case kgo.InconsistentGroupProtocol:
		return "the group's other members know neither range nor sticky assignment: use another group, or configure them"
	case kgo.InvalidSessionTimeout:
		return "SessionTimeout is outside of what the broker allows (group.min and group.max.session.timeout.ms)"
	case kgo.FencedInstanceID:
		return "another member has the same InstanceID: give each its own"
	case kgo.InvalidReplicationFactor:
		return "there are fewer brokers than replicas wanted"
	case kgo.InvalidConfiguration:
		return "check the setting's name and value"
	case kgo.UnsupportedVersion:
		return "the broker is too old or too new for this request"
	}
	return "see the broker's log"
}

func (c *client) emit(e stagebus.Event) {
	e.Broker = c.url
	c.hook.Emit(e)
}
