package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus"
)

// session is one connection from its greeting to its end. It never comes back: what belonged to it (channels, delivery tags,
// confirms) ends with it, and the next one has another epoch.
type session struct {
	config *config
	epoch  int64
	server server
	conn   *amqp091.Connection
	wire   *wire

	done chan struct{} // closed when the connection is lost
	end  sync.Once
	err  error // why, once done is closed

	mu   sync.Mutex    // protects open, and that no request begins after done
	open chan struct{} // closed while the broker takes messages
	held error         // why it doesn't

	wg sync.WaitGroup // the watcher, and requests under way
}

// dial opens a session with one address within ctx.
func (c *config) dial(ctx context.Context, address string) (*session, error) {
	w, transport, err := c.connect(ctx, address)
	if err != nil {
		return nil, err
	}
	// The library reads and writes without a context: closing the socket is what ends it.
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()

	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName(c.Name)
	properties["product"] = "stagebus"
	conf := amqp091.Config{
		Vhost: c.Vhost, Heartbeat: c.Heartbeat, FrameSize: 128 << 10, ChannelMax: 2047, Locale: "en_US", Properties: properties,
		SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: c.User, Password: c.Password}},
	}
	if c.External {
		conf.SASL = []amqp091.Authentication{&amqp091.ExternalAuth{}}
	}
	conn, err := amqp091.Open(transport, conf)
	if ctx.Err() != nil { // whatever the library made of the closed socket: wrong credentials, for one
		_ = transport.Close()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = transport.Close() // the library leaves it open for some errors
		return nil, err
	}
	s := &session{
		config: c, epoch: c.epochs.Add(1), server: serverOf(conn.Properties), conn: conn, wire: w,
		done: make(chan struct{}), open: make(chan struct{}),
	}
	close(s.open)
	w.expect(conn.Config.Heartbeat * 3 / 2) // as negotiated
	closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp091.Blocking, 16))
	s.wg.Go(func() { s.watch(closed, blocked) })
	if !stop() { // the context ended in between and took the socket away
		s.kill(context.Cause(ctx))
		s.wg.Wait()
		return nil, context.Cause(ctx)
	}
	c.server.Store(&s.server)
	return s, nil
}

func (s *session) watch(closed chan *amqp091.Error, blocked chan amqp091.Blocking) {
	for {
		select {
		case e := <-closed:
			// The library tells before it takes the locks that a stuck write holds.
			var err error = amqp091.ErrClosed
			if e != nil {
				err = e
			}
			s.kill(err)
			return
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			s.block(b)
		}
	}
}

// kill ends the session at once: everything that waits for the connection returns.
func (s *session) kill(err error) {
	s.end.Do(func() {
		s.mu.Lock() // no request begins from here on
		defer s.mu.Unlock()
		s.err = err
		close(s.done)
	})
	_ = s.wire.Close()
}

func (s *session) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *session) block(b amqp091.Blocking) {
	s.mu.Lock()
	was := s.wire.blocked.Swap(b.Active)
	switch {
	case b.Active && !was:
		s.open, s.held = make(chan struct{}), fmt.Errorf("the broker takes no messages for now: %s", b.Reason)
	case !b.Active && was:
		close(s.open)
		s.held = nil
	}
	s.mu.Unlock()
	switch {
	case b.Active && !was:
		s.config.emit(stagebus.Event{Kind: stagebus.EventBlocked, Err: errors.New(b.Reason)})
	case !b.Active && was:
		s.config.emit(stagebus.Event{Kind: stagebus.EventUnblocked})
	}
}

// blocked returns why the broker takes no messages, or nil if it does.
func (s *session) blocked() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// gate returns a channel that is closed while the broker takes messages.
func (s *session) gate() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// do runs f, which makes requests to the broker, aside, since the library's requests have no time-out. It returns f's error, or ctx's when that
// ends first: f then goes on by itself, and undo, if not nil, takes back what it did. Requests that outlast rpcTimeout end the session, and
// with it f. That a caller loses patience doesn't: others use the session too.
func (s *session) do(ctx context.Context, f func() error, undo func()) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.try(ctx, f, undo)
}

// try is do for what has to be tried even though ctx may have ended.
func (s *session) try(ctx context.Context, f func() error, undo func()) error {
	s.mu.Lock()
	if !s.alive() {
		s.mu.Unlock()
		return s.err
	}
	s.wg.Add(1)
	s.mu.Unlock()
	result := make(chan error, 1)
	var taken atomic.Bool // by the caller, who gave up, or by f, which finished
	go func() {
		defer s.wg.Done()
		watchdog := time.AfterFunc(rpcTimeout, func() { s.kill(errNoAnswer) })
		err := f()
		watchdog.Stop()
		if taken.CompareAndSwap(false, true) {
			result <- err
		} else if err == nil && undo != nil {
			undo()
		}
	}()
	select {
	case err := <-result:
		return s.reason(err)
	case <-ctx.Done():
		if taken.CompareAndSwap(false, true) {
			return context.Cause(ctx)
		}
		return s.reason(<-result)
	}
}

var errNoAnswer = errors.New("the broker didn't answer a request in time")

// reason prefers why the session ended to the library's bare "channel/connection is not open".
func (s *session) reason(err error) error {
	if err != nil && errors.Is(err, amqp091.ErrClosed) && !s.alive() && s.err != nil {
		return s.err
	}
	return err
}

// scratch runs f on a channel that is thrown away, since an exception ends a channel: a look at what may not be there must cost no other.
func (s *session) scratch(ctx context.Context, f func(*amqp091.Channel) error) error {
	return s.do(ctx, func() error {
		ch, err := s.conn.Channel()
		if err != nil {
			return err
		}
		if err := f(ch); err != nil {
			_ = ch.Close() // f's error says more
			return err
		}
		return ch.Close()
	}, nil)
}

// close ends the session in order: the broker hears of it within ctx, and seconds.
func (s *session) close(ctx context.Context) {
	goodbye := make(chan struct{})
	go func() {
		defer close(goodbye)
		_ = s.conn.Close() // it is over either way
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-goodbye:
	case <-ctx.Done():
	case <-t.C:
	}
	s.kill(stagebus.ErrClosed)
	<-goodbye
	s.wg.Wait()
}

// closeTimeout is how long the broker gets to answer a goodbye.
const closeTimeout = 5 * time.Second
