package pipeline

import (
	"hash/maphash"
)

// key is the order of the deliveries of one topic with one key. They go through it in the order in which they came: queued, busy (in
// the list of those that are ready, or being handled, one at a time), waiting and sending. So a handler runs while outputs of the one before it
// are on their way, but they are not sent before those are durable: a resend can't come behind what followed it.
type key struct {
	hash    uint64
	queue   list
	busy    bool
	sending int  // deliveries whose outputs are pending, in flight, or to be sent again
	waiting list // handled, behind those
	release bool // one was given back by its handler: the queue goes back behind it
	lost    bool // one was given back since its outputs can't be sent, and the run ends: what was handled behind it goes back too
}

// enqueue puts a delivery behind the others of its key. r.mu is held.
func (r *run) enqueue(it *item) {
	// Equal hashes of different keys are one key: that is rare, and does no harm.
	h := maphash.Bytes(r.seed, it.d.Key) ^ maphash.String(r.seed, it.d.Topic)*0x9e3779b97f4a7c15
	k := r.keys[h]
	if k == nil {
		if n := len(r.spare); n > 0 {
			k, r.spare = r.spare[n-1], r.spare[:n-1]
		} else {
			k = new(key)
		}
		k.hash = h
		r.keys[h] = k
	}
	it.key = k
	k.queue.push(it)
	r.advance(k)
}

// advance starts the next of a key, or gives back what can't be started, and forgets a key that has nothing. What is given back waits for those
// before it, so that all come again in their order. r.mu is held.
func (r *run) advance(k *key) {
	if k.busy {
		return
	}
	settled := k.sending == 0 && k.waiting.n == 0
	for k.queue.n > 0 {
		it := k.queue.head
		if r.stopping || it.lane.draining || k.release {
			if !settled {
				return
			}
			k.queue.pop()
			r.giveBack(it)
			continue
		}
		k.busy = true
		r.ready.push(k.queue.pop())
		return
	}
	if settled {
		delete(r.keys, k.hash)
		*k = key{}
		r.spare = append(r.spare, k)
	}
}

// giveBackQueued gives back those that match and have not been started. r.mu is held.
func (r *run) giveBackQueued(match func(*item) bool) {
	for ready := r.ready.take(); ready.n > 0; {
		it := ready.pop()
		if !match(it) {
			r.ready.push(it)
			continue
		}
		k := it.key
		if k == nil {
			r.giveBack(it)
			continue
		}
		k.busy = false
		front := list{}
		front.push(it)
		k.queue.prepend(&front)
		r.advance(k)
	}
	for _, k := range r.keys {
		r.advance(k)
	}
}
