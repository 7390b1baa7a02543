package kafka

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	kgo "github.com/segmentio/kafka-go"

	"github.com/stagebus/stagebus"
)

func TestClassifyProduce(t *testing.T) {
	for _, c := range []struct {
		code        kgo.Error
		base, start int64
		want        answer
		because     string
	}{
		{kgo.NotLeaderForPartition, -1, -1, retriable, "refused before anything was written"},
		{kgo.NotLeaderForPartition, 0, -1, retriable, "a broker that leaves the offset at zero when it refuses"},
		{kgo.NotLeaderForPartition, 17, 0, uncertain, "written, then deposed: it may survive"},
		{kgo.UnknownTopicOrPartition, -1, -1, retriable, "a topic that is new to this broker"},
		{kgo.NotEnoughReplicas, -1, -1, retriable, "checked before it is written"},
		{kgo.NotEnoughReplicasAfterAppend, 17, 0, uncertain, "checked afterwards"},
		{kgo.RequestTimedOut, 17, 0, uncertain, "the replicas may have it yet"},
		{kgo.MessageSizeTooLarge, -1, -1, oneOfMany, ""},
		{kgo.InvalidRecord, -1, -1, oneOfMany, "no key on a compacted topic"},
		{kgo.TopicAuthorizationFailed, -1, -1, final, ""},
		{kgo.PolicyViolation, -1, -1, final, ""},
	} {
		if got := classifyProduce(c.code, c.base, c.start); got != c.want {
			t.Errorf("%v at %d: got %d, want %d: %s", c.code, c.base, got, c.want, c.because)
		}
	}
}

func TestFailKeepsKindCauseAndAddress(t *testing.T) {
	c := &client{url: "kafka://h:9092"}
	for _, x := range []struct{ err, kind error }{
		{kgo.SASLAuthenticationFailed, stagebus.ErrAuth},
		{fmt.Errorf("%w: more", kgo.TopicAuthorizationFailed), stagebus.ErrAuth},
		{kgo.UnknownTopicOrPartition, stagebus.ErrNotFound},
		{kgo.MessageSizeTooLarge, stagebus.ErrTooLarge},
		{kgo.PolicyViolation, stagebus.ErrRefused},
		{&net.DNSError{Name: "h", IsNotFound: true}, stagebus.ErrUnavailable},
		{x509.UnknownAuthorityError{}, stagebus.ErrUnavailable},
		{context.DeadlineExceeded, stagebus.ErrUnavailable},
		{&sentError{errors.New("reset")}, stagebus.ErrUnavailable},
	} {
		err := c.fail("connect", "t", x.err)
		var e *stagebus.Error
		if !errors.Is(err, x.kind) || !errors.Is(err, x.err) || !errors.As(err, &e) || e.Do == "" || !strings.Contains(err.Error(), c.url) {
			t.Errorf("%v: got %v, want %v", x.err, err, x.kind)
		}
		if again := c.fail("other", "u", err); again.Error() != err.Error() {
			t.Errorf("wrapped twice: %v", again)
		}
	}
	if err := c.fail("send", "t", context.Canceled); !errors.Is(err, context.Canceled) || c.fail("send", "t", nil) != nil {
		t.Errorf("got %v", err)
	}
}
