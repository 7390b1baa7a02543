package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kversion"
)

// kline is a line on which Kafka's protocol is spoken.
type kline struct {
	*line
	conn     *protocol.Conn
	versions []versionRange
}

func (x *exam) checkKafka(ctx context.Context) {
	var entry *kline
	works := x.each(x.patient.kafka.Brokers, func(address string) bool {
		k := &kline{line: newLine(address)}
		if !x.enterKafka(ctx, k) {
			k.close()
			return false
		}
		if entry == nil {
			entry = k
		} else {
			k.close()
		}
		return true
	})
	rest := []string{stepDeclare, stepRoundTrip, stepClock}
	if !works {
		x.skipRest(append([]string{stepResolve, stepTCP}, append(x.tlsStep(), append([]string{stepVersion, stepLogin, stepListener}, rest...)...)...)...)
		return
	}
	defer entry.close()
	if !x.listeners(ctx, entry) {
		x.skipRest(rest...)
		return
	}
	x.trial(ctx, trial{
		refused: x.kafkaRights, clock: x.kafkaClock, cleanUp: x.deleteGroup,
		late: func(ctx context.Context) error { return x.coordinator(ctx, entry) },
	})
}

// enterKafka takes the steps up to a connection that is logged in.
func (x *exam) enterKafka(ctx context.Context, k *kline) bool {
	return x.reach(ctx, k.line) &&
		x.step(ctx, stepVersion, k.String(), func(ctx context.Context) finding { return x.greetKafka(ctx, k) }) &&
		x.step(ctx, stepLogin, k.String(), func(ctx context.Context) finding { return x.loginKafka(ctx, k) })
}

// versionRange is what a broker knows of one kind of request.
type versionRange struct{ key, min, max int16 }

var errNotKafka = errors.New("the answer isn't Kafka's")

const maxVersions = 64 << 10 // bytes of an answer: some hundred kinds of requests of six bytes each

// apiVersions asks which requests a broker knows, in the version of the question that each answers. It is done by hand because
// what answers may not be Kafka: the library would take any four bytes for a size to allocate.
func apiVersions(c net.Conn, client string) ([]versionRange, error) {
	const correlation = 0x53544742
	be := binary.BigEndian
	b := be.AppendUint16(make([]byte, 4, 64), uint16(protocol.ApiVersions))
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, correlation)
	b = be.AppendUint16(b, uint16(len(client)))
	b = append(b, client...)
	be.PutUint32(b, uint32(len(b)-4))
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	var head [14]byte // size, correlation id, error code, number of entries
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	size, n := be.Uint32(head[:]), be.Uint32(head[10:])
	if size > maxVersions || be.Uint32(head[4:]) != correlation || uint64(size) < 10+6*uint64(n) {
		return nil, errNotKafka
	}
	if code := kgo.Error(int16(be.Uint16(head[8:]))); code != 0 {
		return nil, code
	}
	body := make([]byte, size-10)
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	ranges := make([]versionRange, n)
	for i := range ranges {
		at := body[6*i:]
		ranges[i] = versionRange{int16(be.Uint16(at)), int16(be.Uint16(at[2:])), int16(be.Uint16(at[4:]))}
	}
	return ranges, nil
}

// greetKafka asks for the versions of requests, by which it knows Kafka's own.
func (x *exam) greetKafka(ctx context.Context, k *kline) finding {
	defer bound(ctx, k.line.conn)()
	client := x.patient.kafka.ClientID
	ranges, err := apiVersions(k.line.conn, client)
	if err != nil {
		if number, said, ok := alert(err); ok {
			return x.refusedTLS(k.line, number, said)
		}
		var code kgo.Error
		if errors.As(err, &code) {
			return ill(fmt.Sprintf("%s answers the first question with an error: %s", k, code.Title()), "see the broker's log")
		}
		return x.mute(ctx, k.line, err)
	}
	k.versions = ranges
	k.conn = protocol.NewConn(k.line.conn, client)
	selected := map[protocol.ApiKey]int16{}
	for _, r := range ranges {
		key := protocol.ApiKey(r.key)
		selected[key] = key.SelectVersion(r.min, r.max)
	}
	k.conn.SetVersions(selected)
	return kafkaVersion(ranges)
}

// offsetFetchOf25 is the version of OffsetFetch that came with Kafka 2.5, the oldest that is tested.
const offsetFetchOf25 = 7

// kafkaVersion guesses the broker's version, which Kafka doesn't say, from the requests that it knows.
func kafkaVersion(ranges []versionRange) finding {
	var vs kversion.Versions
	newest := map[protocol.ApiKey]int16{}
	for _, r := range ranges {
		vs.SetMaxKeyVersion(r.key, r.max)
		newest[protocol.ApiKey(r.key)] = r.max
	}
	guess := vs.VersionGuess()
	// What only resembles a version is another program that speaks Kafka's protocol.
	f := fine("speaks Kafka's protocol: %d kinds of requests, Fetch up to version %d", len(ranges), newest[protocol.Fetch])
	if exact, ok := strings.CutPrefix(guess, "v"); ok {
		f = fine("Kafka %s", exact)
	} else if least, ok := strings.CutPrefix(guess, "at least v"); ok {
		f = fine("Kafka %s or newer", least)
	}
	if newest[protocol.OffsetFetch] < offsetFetchOf25 {
		return f.warn("this broker is older than what stagebus is tested with", "use Kafka 2.5 or newer")
	}
	return f
}

// mechanism is the login of the URL, or nil.
func (x *exam) mechanism() (sasl.Mechanism, error) {
	s := x.patient.kafka.SASL
	switch s.Mechanism {
	case "":
		return nil, nil
	case "plain":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password)
	}
	return scram.Mechanism(scram.SHA512, s.User, s.Password)
}

// loginKafka logs in, or finds out that the broker wants a login when the URL has none.
func (x *exam) loginKafka(ctx context.Context, k *kline) finding {
	defer bound(ctx, k.line.conn)()
	m, err := x.mechanism()
	if err != nil {
		return wrong("the user's name or password can't be used with "+x.patient.kafka.SASL.Mechanism+": "+err.Error(), "use another mechanism (auth_mechanism=plain), or other characters")
	}
	if m == nil {
		return x.withoutLogin(ctx, k)
	}
	offers, err := handshake(k.conn, m.Name())
	var code kgo.Error
	switch {
	case errors.As(err, &code) && code == kgo.UnsupportedSASLMechanism:
		return x.otherMechanism(k, m.Name(), offers)
	case errors.As(err, &code) && code == kgo.IllegalSASLState:
		return wrong(fmt.Sprintf("%s takes no login, and the URL has one", k), "leave USER:PASSWORD@ out of the URL, or take the port of the listener with SASL (listener.security.protocol.map in server.properties)")
	case err != nil:
		return x.lostKafka(k, "login", err)
	}
	user := x.patient.kafka.SASL.User
	if err := authenticate(ctx, k, m); err != nil {
		if errors.As(err, &code) || errors.Is(err, errSession) || hungUp(err) {
			return wrong(fmt.Sprintf("%s refuses the user %s: %s", k, user, saidOf(err)),
				fmt.Sprintf("correct USER:PASSWORD@ in the URL (/ is %%2F, @ is %%40, %% is %%25); the broker's users: %s", whereUsers(m.Name(), k.String(), user)))
		}
		return x.lostKafka(k, "login", err)
	}
	return fine("user %s, %s", user, m.Name())
}

func whereUsers(mechanism, broker, user string) string {
	if mechanism == "PLAIN" {
		return "sasl.jaas.config of the listener, user_" + user + "=…"
	}
	return fmt.Sprintf("kafka-configs --bootstrap-server %s --alter --entity-type users --entity-name %s --add-config '%s=[password=…]'", broker, user, mechanism)
}

// withoutLogin asks something that only who is logged in may ask. A broker that wants a login hangs up.
func (x *exam) withoutLogin(ctx context.Context, k *kline) finding {
	_, err := k.conn.RoundTrip(&metadata.Request{TopicNames: []string{}})
	if err == nil {
		if x.encrypts() && k.gaveCert {
			return fine("by client certificate")
		}
		return fine("none is asked for")
	}
	if number, said, ok := alert(err); ok {
		return x.refusedTLS(k.line, number, said)
	}
	if offers := x.mechanisms(ctx, k); len(offers) > 0 {
		do := fmt.Sprintf("write %s://USER:PASSWORD@%s", x.patient.url.Scheme, k)
		if usable := usable(offers); len(usable) == 0 {
			do = cantLogin
		} else if !slices.Contains(usable, "plain") {
			do += "?auth_mechanism=" + usable[0]
		}
		return wrong(fmt.Sprintf("%s wants a login (SASL %s), and the URL has none", k, list(offers, "or")), do)
	}
	return x.lostKafka(k, "first request", err)
}

const cantLogin = "stagebus knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: enable one of them on the listener (sasl.enabled.mechanisms), or take another listener"

// mechanisms asks on a new connection which logins are offered, by wanting one that doesn't exist.
func (x *exam) mechanisms(ctx context.Context, k *kline) []string {
	again := &kline{line: &line{host: k.host, port: k.port, ips: k.ips}}
	defer again.close()
	if !x.connect(ctx, again.line).ok() || x.encrypts() && !x.secure(ctx, again.line, x.tlsConfig()).ok() || !x.greetKafka(ctx, again).ok() {
		return nil
	}
	defer bound(ctx, again.line.conn)()
	offers, err := handshake(again.conn, "ANY")
	if errors.Is(err, kgo.UnsupportedSASLMechanism) {
		return offers
	}
	return nil
}

func (x *exam) otherMechanism(k *kline, wanted string, offers []string) finding {
	do := cantLogin
	if usable := usable(offers); len(usable) > 0 {
		do = fmt.Sprintf("write ?auth_mechanism=%s in the URL, or add %s to sasl.enabled.mechanisms in server.properties", usable[0], wanted)
	}
	return wrong(fmt.Sprintf("%s offers the logins %s, not %s", k, list(offers, "and"), wanted), do)
}

// usable are those of offers that the adapter knows, as it calls them.
func usable(offers []string) []string {
	var known []string
	for _, o := range offers {
		if l := strings.ToLower(o); slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, l) {
			known = append(known, l)
		}
	}
	return known
}

func handshake(c *protocol.Conn, mechanism string) (offers []string, err error) {
	m, err := c.RoundTrip(&saslhandshake.Request{Mechanism: mechanism})
	if err != nil {
		return nil, err
	}
	r := m.(*saslhandshake.Response)
	if r.ErrorCode != 0 {
		err = kgo.Error(r.ErrorCode)
	}
	slices.Sort(r.Mechanisms) // some brokers give another order each time
	return r.Mechanisms, err
}

// errSession: the broker let us in, or not, in a way that the mechanism can't accept. With SCRAM both sides prove themselves.
var errSession = errors.New("SASL")

// saidError is a broker's code with its own words.
type saidError struct {
	code kgo.Error
	said string
}

func (e *saidError) Error() string { return e.said }
func (e *saidError) Unwrap() error { return e.code }

func saidOf(err error) string {
	var s *saidError
	var code kgo.Error
	switch {
	case errors.As(err, &s) && s.said != "":
		return s.said
	case errors.As(err, &code):
		return code.Title()
	case hungUp(err):
		return "it hangs up at the password"
	}
	return err.Error()
}

func authenticate(ctx context.Context, k *kline, m sasl.Mechanism) error {
	port, _ := strconv.Atoi(k.port)
	session, state, err := m.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: k.host, Port: port}))
	for done := false; err == nil && !done; {
		var answer protocol.Message
		answer, err = k.conn.RoundTrip(&saslauthenticate.Request{AuthBytes: state})
		if err != nil {
			return err
		}
		r := answer.(*saslauthenticate.Response)
		if r.ErrorCode != 0 {
			return &saidError{kgo.Error(r.ErrorCode), r.ErrorMessage}
		}
		done, state, err = session.Next(ctx, r.AuthBytes)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSession, err)
	}
	return nil
}

// lostKafka says that a connection that had begun well ended.
func (x *exam) lostKafka(k *kline, during string, err error) finding {
	switch {
	case timedOut(err):
		return ill(fmt.Sprintf("%s doesn't answer the %s within %s", k, during, x.Timeout), "it may be starting or overloaded: see its log")
	case hungUp(err):
		return ill(fmt.Sprintf("%s hangs up at the %s", k, during), "it may be starting or stopping: see its log")
	}
	return ill(fmt.Sprintf("the %s at %s failed: %s", during, k, saidOf(err)), "see the broker's log")
}
