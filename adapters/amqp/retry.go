package amqp

import (
	"context"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stagebus/stagebus/adapters/internal/ladder"
)

// retryArguments are those of a queue where messages wait until they expire, and go back to the source through the default exchange. One delay
// has one queue: only the head of a queue expires. Where the server can, the message leaves only once the source has it.
func (s server) retryArguments(step time.Duration, source string) []amqp091.Table {
	table := func(kind string) amqp091.Table {
		return amqp091.Table{
			"x-queue-type":              kind,
			"x-message-ttl":             step.Milliseconds(),
			"x-dead-letter-exchange":    "",
			"x-dead-letter-routing-key": source,
		}
	}
	if !s.safeDeadLettering() {
		return []amqp091.Table{table(classic)}
	}
	safe := table(quorum)
	safe["x-dead-letter-strategy"] = "at-least-once"
	safe["x-overflow"] = "reject-publish" // without which the strategy is not taken
	if s.deliveryLimit() {
		safe["x-delivery-limit"] = int64(-1)
	}
	return []amqp091.Table{safe, table(classic)}
}

// privateRetry returns the retry queue of an ephemeral lane, which dies with its connection as the source does.
func (l *lane) privateRetry(ctx context.Context, step time.Duration) (string, error) {
	l.writing.Lock()
	queue := l.retries[ladder.Millis(step)]
	l.writing.Unlock()
	if queue != "" {
		return queue, nil
	}
	args := amqp091.Table{
		"x-queue-type": classic, "x-message-ttl": step.Milliseconds(), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": l.queue,
	}
	name := make(chan string, 1)
	err := l.s.scratch(ctx, func(ch *amqp091.Channel) error {
		q, err := ch.QueueDeclare("", false, false, true, false, args)
		name <- q.Name
		return err
	})
	if err != nil {
		return "", err
	}
	queue = <-name
	l.writing.Lock()
	defer l.writing.Unlock()
	l.retries[ladder.Millis(step)] = queue
	return queue, nil
}

func (l *lane) forgetRetry(queue string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	for step, name := range l.retries {
		if name == queue {
			delete(l.retries, step)
		}
	}
}

// dropRetries deletes an ephemeral lane's retry queues.
func (l *lane) dropRetries() {
	l.writing.Lock()
	defer l.writing.Unlock()
	for step, queue := range l.retries {
		_, _ = l.ch.QueueDelete(queue, false, false, false) // else it ends with the connection
		delete(l.retries, step)
	}
}

// knowsQueue, noteQueue and forgetQueue remember the retry and dead-letter queues that exist, so that not every copy costs a look.
func (d *driver) knowsQueue(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues[name]
}

func (d *driver) noteQueue(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queues) >= routesMax {
		clear(d.queues)
	}
	d.queues[name] = true
}

func (d *driver) forgetQueue(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.queues, name)
}

// retrySteps are all delays that the ladder has.
var retrySteps = func() (steps []time.Duration) {
	for step := ladder.Step(0); ; step = ladder.Step(step + 1) {
		if len(steps) > 0 && step == steps[len(steps)-1] {
			return steps // the longest
		}
		steps = append(steps, step)
	}
}()
