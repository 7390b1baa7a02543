package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// From where on clocks that differ are worth a word, and from where on they do harm: deadlines pass before their time, retries come too
// early, tokens and certificates aren't valid.
const (
	skewWarns = time.Second
	skewFails = time.Minute
)

// judgeClock says what it means that the broker's clock is ahead of ours by skew, give or take unsure.
func judgeClock(skew, unsure time.Duration) finding {
	size, where := skew, "ahead of"
	if skew < 0 {
		size, where = -skew, "behind"
	}
	if size <= unsure {
		return fine("the broker's clock and this machine's agree, give or take %s", Brief(unsure))
	}
	said := fmt.Sprintf("the broker's clock is %s %s this machine's, give or take %s", Brief(size), where, Brief(unsure))
	const do = "set the one that is wrong (date -u shows it) and keep it right by NTP: timedatectl set-ntp true"
	switch least := size - unsure; {
	case least > skewFails:
		return wrong(said, do)
	case least > skewWarns:
		return fine("").warn(said, do)
	}
	return fine("%s", said)
}

// within judges a whole second that the broker read from its clock at some moment from before to after.
func within(second int64, before, after time.Time) finding {
	least, most := time.Unix(second, 0).Sub(after), time.Unix(second+1, 0).Sub(before)
	return judgeClock((least+most)/2, (most-least)/2)
}

// kafkaClock compares with the times that the leader of the partition stamped, for which the topic asks.
func (x *exam) kafkaClock(_ context.Context, samples []sample) finding {
	best := samples[0]
	for _, s := range samples {
		if s.after.Sub(s.before) < best.after.Sub(best.before) {
			best = s
		}
	}
	half := best.after.Sub(best.before) / 2
	return judgeClock(best.stamped.Sub(best.before.Add(half)), half+time.Millisecond) // a stamp has no more than milliseconds
}

var errNoDeath = errors.New("the broker didn't say when a message expired")

// amqpClock lets a message expire and reads when, by the broker's clock, it did: nothing else in AMQP tells the time.
func (x *exam) amqpClock(ctx context.Context, _ []sample) finding {
	var f finding
	err := x.onChannel(ctx, func(ch *amqp091.Channel) error {
		in, out := x.name+"--clock", x.name+"--clock-out"
		if _, err := ch.QueueDeclare(out, false, true, true, false, nil); err != nil {
			return err
		}
		args := amqp091.Table{"x-message-ttl": int32(0), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": out}
		if _, err := ch.QueueDeclare(in, false, true, true, false, args); err != nil {
			return err
		}
		deliveries, err := ch.ConsumeWithContext(ctx, out, "", true, true, false, false, nil)
		if err != nil {
			return err
		}
		before := x.world.now()
		if err := ch.PublishWithContext(ctx, "", in, false, false, amqp091.Publishing{}); err != nil {
			return err
		}
		select {
		case d, ok := <-deliveries:
			after := x.world.now()
			when, found := deathOf(d.Headers)
			if !ok || !found {
				return errNoDeath
			}
			f = within(when.Unix(), before, after)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err != nil {
		return finding{status: Skip, detail: "the broker's clock could not be read: " + oneCause(err)}
	}
	return f
}

// deathOf reads RabbitMQ's own header of messages that were dead-lettered.
func deathOf(headers amqp091.Table) (time.Time, bool) {
	deaths, _ := headers["x-death"].([]any)
	if len(deaths) == 0 {
		return time.Time{}, false
	}
	first, _ := deaths[0].(amqp091.Table)
	when, ok := first["time"].(time.Time)
	return when, ok
}

// httpClock reads the clock from any answer of the management API, even one that asks who we are.
func (x *exam) httpClock(ctx context.Context) finding {
	at := x.management()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return finding{status: Skip, detail: "the broker's clock could not be read: " + err.Error()}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if c := x.tlsConfig(); c != nil {
		transport.TLSClientConfig = c.Clone()
	}
	before := x.world.now()
	answer, err := transport.RoundTrip(request)
	after := x.world.now()
	if err != nil {
		return finding{status: Skip, detail: fmt.Sprintf("the broker's clock could not be read: its management API at %s doesn't answer: %s", at, plainError(err))}
	}
	_ = answer.Body.Close() // not needed
	when, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return finding{status: Skip, detail: "the broker's clock could not be read: the management API gives no date"}
	}
	return within(when.Unix(), before, after)
}
