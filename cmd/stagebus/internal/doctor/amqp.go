package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

func (x *exam) checkAMQP(ctx context.Context) {
	o := x.patient.amqp
	rest := []string{stepDeclare, stepRoundTrip, stepClock}
	works := x.each(o.Addresses, func(address string) bool {
		l := newLine(address)
		defer l.close()
		if !x.reach(ctx, l) {
			return false
		}
		return x.greetAMQP(ctx, l)
	})
	if !works {
		x.skipRest(append([]string{stepResolve, stepTCP}, append(x.tlsStep(), append([]string{stepVersion, stepLogin}, rest...)...)...)...)
		return
	}
	x.trial(ctx, trial{refused: x.amqpRights, clock: x.amqpClock, readOnlyClock: x.httpClock, cleanUp: x.deleteAMQP})
}

// tlsStep is the name of the step if there is one.
func (x *exam) tlsStep() []string {
	if x.encrypts() {
		return []string{stepTLS}
	}
	return nil
}

// reach takes the steps to an encrypted or plain connection.
func (x *exam) reach(ctx context.Context, l *line) bool {
	if !x.step(ctx, stepResolve, l.host, func(ctx context.Context) finding { return x.resolve(ctx, l) }) ||
		!x.step(ctx, stepTCP, l.String(), func(ctx context.Context) finding { return x.connect(ctx, l) }) {
		return false
	}
	if !x.encrypts() {
		return true
	}
	conf := x.tlsConfig()
	return x.step(ctx, stepTLS, l.String(), func(ctx context.Context) finding { return x.secure(ctx, l, conf) })
}

// silentClose is how long RabbitMQ waits before it hangs up at a wrong password, unless a client says that it understands a refusal, which
// the library doesn't.
const silentClose = 3 * time.Second

// greetAMQP opens a connection on l as the adapter does, and closes it again. The library greets and logs in in one call: when the
// first answer came tells the two apart.
func (x *exam) greetAMQP(ctx context.Context, l *line) bool {
	o := x.patient.amqp
	began := time.Now()
	login := max(x.Timeout, silentClose+time.Second)
	ctx, cancel := context.WithTimeout(ctx, x.Timeout+login)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	mute := time.AfterFunc(x.Timeout, func() {
		if _, first := l.conn.heard(); first.IsZero() {
			end(context.DeadlineExceeded)
		}
	})
	defer mute.Stop()
	conn, err := x.openAMQP(ctx, l)
	var properties amqp091.Table
	if conn != nil {
		properties = conn.Properties
	}
	took := time.Since(began)
	if err != nil {
		_ = l.conn.Close() // the library leaves it open for some errors
	} else {
		defer conn.CloseDeadline(time.Now().Add(x.Timeout)) //nolint:errcheck // it has served
	}
	if properties == nil {
		if e := l.conn.failure(); e != nil && ctx.Err() == nil {
			err = e
		}
		if number, said, ok := alert(err); ok {
			x.note(stepLogin, l.String(), took, x.refusedTLS(l, number, said))
			return false
		}
		x.note(stepVersion, l.String(), took, x.mute(ctx, l, err))
		return false
	}
	_, first := l.conn.heard()
	greeting := first.Sub(began)
	x.note(stepVersion, l.String(), greeting, rabbitVersion(properties))
	f := fine("user %s, vhost %s", user(o.User), o.Vhost)
	switch {
	case err == nil && o.External:
		f = fine("as the client certificate says, vhost %s", o.Vhost)
	case err != nil:
		f = x.refusedLogin(l, err)
	}
	x.note(stepLogin, l.String(), took-greeting, f)
	return f.ok()
}

func user(name string) string {
	if name == "" {
		return `""`
	}
	return name
}

// openAMQP is the handshake of the protocol on l. The connection is not nil even after an error: it knows how far it got.
func (x *exam) openAMQP(ctx context.Context, l *line) (*amqp091.Connection, error) {
	o := x.patient.amqp
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName(o.Name + " doctor")
	properties["product"] = "stagebus"
	conf := amqp091.Config{
		Vhost: o.Vhost, Heartbeat: o.Heartbeat, Locale: "en_US", Properties: properties,
		SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: o.User, Password: o.Password}},
	}
	if o.External {
		conf.SASL = []amqp091.Authentication{&amqp091.ExternalAuth{}}
	}
	// The library reads without a context, and moves deadlines: closing the socket is what ends it.
	stop := context.AfterFunc(ctx, func() { _ = l.conn.Close() })
	conn, err := amqp091.Open(l.conn, conf)
	if !stop() && err != nil {
		err = context.Cause(ctx)
	}
	return conn, err
}

// The oldest RabbitMQ that is tested.
const oldestMajor, oldestMinor = 3, 8

func rabbitVersion(properties amqp091.Table) finding {
	product, _ := properties["product"].(string)
	version, _ := properties["version"].(string)
	f := fine("%s %s", product, version)
	parts := strings.SplitN(version+".", ".", 3)
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	switch {
	case product != "RabbitMQ":
		return f.warn(fmt.Sprintf("%q is not RabbitMQ: what isn't in AMQP 0.9.1 itself may be missing", product), "use RabbitMQ 3.8 or newer")
	case err1 != nil || err2 != nil || major < oldestMajor || major == oldestMajor && minor < oldestMinor:
		return f.warn(fmt.Sprintf("RabbitMQ %s is older than what stagebus is tested with", version), "use RabbitMQ 3.8 or newer")
	}
	return f
}

// refusedLogin says why the broker let nobody in who it had greeted.
func (x *exam) refusedLogin(l *line, err error) finding {
	o := x.patient.amqp
	const allRights = `'.*' '.*' '.*'`
	head, _ := l.conn.heard()
	var said *amqp091.Error
	_ = errors.As(err, &said)
	switch {
	case errors.Is(err, amqp091.ErrSASL):
		wanted, other := "PLAIN", "?auth_mechanism=external with certfile and keyfile"
		if o.External {
			wanted, other = "EXTERNAL", "auth_mechanism=plain and USER:PASSWORD@"
		}
		offers := amqpMechanisms(head)
		do := fmt.Sprintf("enable it in rabbitmq.conf (auth_mechanisms.1 = %s), or use %s in the URL", wanted, other)
		if o.External {
			do = "rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl, and add EXTERNAL to auth_mechanisms in rabbitmq.conf"
		}
		return wrong(fmt.Sprintf("%s offers the logins %s, not %s", l, list(offers, "and"), wanted), do)
	case errors.Is(err, amqp091.ErrCredentials), said != nil && said.Server && said.Code == amqp091.AccessRefused:
		ip, _, _ := net.SplitHostPort(l.addr)
		switch {
		case o.External:
			return wrong(fmt.Sprintf("%s knows no user with the name in the client certificate", l), "rabbitmqctl add_user NAME '' and set_permissions for it; NAME is the certificate's, see ssl_cert_login_from in rabbitmq.conf")
		case o.User == "guest" && o.Password == "guest" && !isLoopback(ip):
			return wrong(fmt.Sprintf("%s refuses the user guest, who may log in only from the broker's own machine unless it is configured otherwise", l),
				fmt.Sprintf("make a user: rabbitmqctl add_user NAME PASSWORD; rabbitmqctl set_permissions -p %s NAME %s; and write amqp://NAME:PASSWORD@%s (for development only: loopback_users = none in rabbitmq.conf)", o.Vhost, allRights, l))
		}
		return wrong(fmt.Sprintf("%s refuses the user %s: the name or the password is wrong", l, user(o.User)),
			fmt.Sprintf("correct USER:PASSWORD@ in the URL (/ is %%2F, @ is %%40, %% is %%25), or on the broker: rabbitmqctl change_password %s PASSWORD", user(o.User)))
	case errors.Is(err, amqp091.ErrVhost), said != nil && said.Server && said.Code == amqp091.NotAllowed:
		why := ""
		if said != nil && said.Server {
			why = ": " + said.Reason
		}
		return wrong(fmt.Sprintf("%s takes the login and refuses the vhost %q%s", l, o.Vhost, why),
			fmt.Sprintf("correct the vhost after the last / of the URL (rabbitmqctl list_vhosts), or: rabbitmqctl add_vhost %s; rabbitmqctl set_permissions -p %s %s %s",
				o.Vhost, o.Vhost, user(o.User), allRights))
	case said != nil && said.Server:
		return ill(fmt.Sprintf("%s refuses the connection: %s", l, said.Reason), "it may be starting or stopping: see its log")
	case timedOut(err):
		return ill(fmt.Sprintf("%s doesn't finish the login within %s", l, max(x.Timeout, silentClose+time.Second)), "see the broker's log; if it asks another system for users (LDAP, HTTP), that may be down")
	}
	return ill(fmt.Sprintf("%s ends the connection during the login: %s", l, plainError(err)), "see the broker's log")
}

// amqpMechanisms reads the logins that a broker offers from its greeting, connection.start: a frame with the class, the method, the
// version, a table and a string of names.
func amqpMechanisms(head []byte) []string {
	const table = 7 + 4 + 2
	if len(head) < table+4 || !strings.HasPrefix(string(head), "\x01\x00\x00") {
		return nil
	}
	at := uint64(table) + 4 + uint64(binary.BigEndian.Uint32(head[table:]))
	if at+4 > uint64(len(head)) {
		return nil
	}
	end := at + 4 + uint64(binary.BigEndian.Uint32(head[at:]))
	if end > uint64(len(head)) {
		return nil
	}
	return strings.Fields(string(head[at+4 : end]))
}

// amqpRights says which right was missing.
func (x *exam) amqpRights(doing string, err error) (finding, bool) {
	var said *amqp091.Error
	if !errors.As(err, &said) || said.Code != amqp091.AccessRefused {
		return finding{}, false
	}
	o := x.patient.amqp
	return wrong(fmt.Sprintf("the user %s may not %s: %s", user(o.User), doing, said.Reason),
		fmt.Sprintf("rabbitmqctl set_permissions -p %s %s '.*' '.*' '.*' (what may be configured, written, read; narrower: '^stagebus.*')", o.Vhost, user(o.User))), true
}

// deleteAMQP removes the queue and the exchange that the adapter made; that they don't exist is no error. The adapter's own Delete asks the
// management API for groups, which takes its time where that is not to be had.
func (x *exam) deleteAMQP(ctx context.Context) error {
	return errors.Join(
		x.onChannel(ctx, func(ch *amqp091.Channel) error {
			_, err := ch.QueueDelete(x.name, false, false, false)
			return err
		}),
		x.onChannel(ctx, func(ch *amqp091.Channel) error { return ch.ExchangeDelete(x.name, false, false) }))
}

// onChannel runs f on a connection of its own.
func (x *exam) onChannel(ctx context.Context, f func(*amqp091.Channel) error) error {
	var err error
	for _, address := range x.working {
		if err = x.onAddress(ctx, address, f); err == nil {
			return nil
		}
	}
	return err
}

func (x *exam) onAddress(ctx context.Context, address string, f func(*amqp091.Channel) error) error {
	l := newLine(address)
	defer l.close()
	for _, look := range []func(context.Context, *line) finding{x.resolve, x.connect} {
		if got := look(ctx, l); !got.ok() {
			return errors.New(got.cause)
		}
	}
	if x.encrypts() {
		if got := x.secure(ctx, l, x.tlsConfig()); !got.ok() {
			return errors.New(got.cause)
		}
	}
	conn, err := x.openAMQP(ctx, l)
	if err != nil {
		return err
	}
	defer conn.CloseDeadline(time.Now().Add(x.Timeout)) //nolint:errcheck // f has reported what matters
	defer context.AfterFunc(ctx, func() { _ = l.conn.Close() })()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}

// management is where RabbitMQ's management API is, without credentials.
func (x *exam) management() string {
	u, err := url.Parse(x.patient.amqp.Management)
	if err != nil {
		return "" // Effective has parsed it
	}
	return u.Scheme + "://" + u.Host + "/"
}
