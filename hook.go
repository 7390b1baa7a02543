package stagebus

import (
	"context"
	"log/slog"
)

// Event is what happened inside an adapter, where middleware can't see it.
type Event struct {
	Kind      EventKind
	Broker    string // URL without credentials
	Topic     string
	Partition int32
	Group     string
	N         int64 // Lag: messages; Assigned and Revoked: the epoch; Stale: how many tokens
	Err       error // why
}

// EventKind is the kind of an [Event].
type EventKind string

// The kinds of [Event].
const (
	EventConnected    EventKind = "connected"
	EventDisconnected EventKind = "disconnected" // Err says why; the adapter is reconnecting
	EventBlocked      EventKind = "blocked"      // the broker takes no messages for now
	EventUnblocked    EventKind = "unblocked"
	EventAssigned     EventKind = "assigned" // a lane began
	EventRevoked      EventKind = "revoked"  // a lane ended
	EventStale        EventKind = "stale"    // settlements came too late
	EventLag          EventKind = "lag"
	EventMissing      EventKind = "missing" // a topic or queue vanished; the adapter waits for it
	EventError        EventKind = "error"   // something failed and is tried again
)

// Hook receives events. It is called from the adapter's goroutines, possibly concurrently, and must not block.
type Hook func(Event)

// Emit calls h unless it is nil.
func (h Hook) Emit(e Event) {
	if h != nil {
		h(e)
	}
}

// LogHook returns a hook that writes events to a handler: errors and losses of connection as warnings, the rest as information. Payloads
// and credentials are never in an event.
func LogHook(h slog.Handler) Hook {
	log := slog.New(h)
	return func(e Event) {
		level := slog.LevelInfo
		switch e.Kind {
		case EventDisconnected, EventBlocked, EventStale, EventMissing, EventError:
			level = slog.LevelWarn
		}
		attrs := []slog.Attr{slog.String("broker", e.Broker)}
		if e.Topic != "" {
			attrs = append(attrs, slog.String("topic", e.Topic), slog.Int("partition", int(e.Partition)))
		}
		if e.Group != "" {
			attrs = append(attrs, slog.String("group", e.Group))
		}
		if e.N != 0 {
			attrs = append(attrs, slog.Int64("n", e.N))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.String("error", e.Err.Error()))
		}
		log.LogAttrs(context.Background(), level, "stagebus: "+string(e.Kind), attrs...)
	}
}
