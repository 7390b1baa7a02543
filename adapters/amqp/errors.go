package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// fail makes the error of one operation. A nil kind is told from the cause.
func (c *config) fail(op, topic string, kind, cause error, do string) *stagebus.Error {
	var done *stagebus.Error
	if kind == nil && errors.As(cause, &done) {
		kind, cause = done.Kind, done.Cause
		if do == "" {
			do = done.Do
		}
	}
	if kind == nil {
		var hint string
		hint, kind = classify(cause)
		if do == "" {
			do = hint
			if errors.Is(kind, stagebus.ErrNotFound) && topic != "" {
				do += ": stagebus topics declare " + topic + " (or set Create, --create in the command)"
			}
		}
	}
	return &stagebus.Error{Op: op, Broker: c.display, Topic: topic, Kind: kind, Cause: cause, Do: do}
}

// classify returns what to do about what the client library or the network said, and its kind, by type and code.
func classify(err error) (do string, kind error) {
	var certificate *tls.CertificateVerificationError
	var remote *net.OpError
	var authority x509.UnknownAuthorityError
	var name *net.DNSError
	var record tls.RecordHeaderError
	var garbled *amqp091.Error
	switch {
	case errors.As(err, &name):
		return "check the host's name in the URL", stagebus.ErrUnavailable
	case errors.Is(err, stagebus.ErrClosed):
		return "", stagebus.ErrClosed
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "is the broker running and reachable? give the call more time", stagebus.ErrUnavailable
	case errors.Is(err, amqp091.ErrCredentials):
		return "check user and password; the user guest may log in from the broker's own host only", stagebus.ErrAuth
	case errors.Is(err, amqp091.ErrSASL):
		return "the broker doesn't offer this auth_mechanism: enable it (rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl for external)", stagebus.ErrAuth
	case errors.Is(err, amqp091.ErrVhost):
		return "check the vhost's name and the user's permissions on it", stagebus.ErrAuth
	case errors.As(err, &certificate), errors.As(err, &authority):
		return "the server's certificate isn't trusted: check cacertfile and server_name_indication", stagebus.ErrUnavailable
	case errors.As(err, &record):
		return "that port doesn't speak TLS: it is amqp:// there, or TLS is at another port (5671)", stagebus.ErrUnavailable
	case errors.As(err, &garbled) && garbled != nil && !garbled.Server && garbled.Code == amqp091.FrameError:
		return "that port doesn't speak AMQP: if it is TLS, the URL begins with amqps://, and if it is Kafka, with kafka://", stagebus.ErrUnavailable
	case errors.As(err, &remote) && remote.Op == "remote error": // what crypto/tls makes of an alert, whose type it doesn't export
		return "the broker refused the TLS handshake: check certfile and keyfile", stagebus.ErrAuth
	}
	if e := exception(err); e != nil {
		switch e.Code {
		case amqp091.AccessRefused, amqp091.NotAllowed:
			return "check the user's permissions (rabbitmqctl list_permissions) and the vhost's name", stagebus.ErrAuth
		case amqp091.NotFound:
			return "declare it first", stagebus.ErrNotFound
		case amqp091.ResourceLocked:
			return "another connection has it for itself (exclusive)", stagebus.ErrConflict
		case amqp091.PreconditionFailed:
			return "", stagebus.ErrConflict
		case amqp091.NotImplemented:
			return "", stagebus.ErrUnsupported
		}
	}
	return "is the broker running and reachable?", stagebus.ErrUnavailable
}

// exception returns the exception that the server raised, or nil if it didn't: a code that this side made up tells nothing.
func exception(err error) *amqp091.Error {
	var e *amqp091.Error
	if errors.As(err, &e) && e != nil && e.Server {
		return e
	}
	return nil
}

// code returns the code of the server's exception, or 0.
func code(err error) int {
	if e := exception(err); e != nil {
		return e.Code
	}
	return 0
}

func (c *config) emit(e stagebus.Event) {
	if e.Broker == "" {
		e.Broker = c.display
	}
	c.Hook.Emit(e)
}
