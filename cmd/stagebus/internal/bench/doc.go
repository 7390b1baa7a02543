// Package bench measures brokers through the interface that users have: how many messages a second, how late they are, what they cost, and
// whether all of them arrived.
//
// Latencies are counted from the time at which a message was to be sent by the schedule, not from the time at which it was sent. A broker that
// stalls for a second makes every message late that was due in that second; a tool that measures from the call to Submit waits with
// the broker, sends one message instead of all those, and reports one slow message (coordinated omission).
package bench
