package pipeline

import (
	"time"

	"github.com/stagebus/stagebus"
)

// item is one delivery on its way through the stage.
type item struct {
	d       stagebus.Delivery
	lane    *lane
	key     *key // nil for a delivery without one
	outs    []stagebus.Message
	bytes   int // of outs
	verdict stagebus.Verdict
	failing time.Time // when it began to fail
	next    *item
}

// list is a queue of items, each in one list at a time.
type list struct {
	head, tail *item
	n          int
}

func (l *list) push(it *item) {
	it.next = nil
	if l.tail == nil {
		l.head = it
	} else {
		l.tail.next = it
	}
	l.tail = it
	l.n++
}

func (l *list) pop() *item {
	it := l.head
	if l.head = it.next; l.head == nil {
		l.tail = nil
	}
	it.next = nil
	l.n--
	return it
}

// take empties l and returns what was in it.
func (l *list) take() list {
	x := *l
	*l = list{}
	return x
}

// append puts the items of o, which is emptied, behind.
func (l *list) append(o *list) {
	for o.n > 0 {
		l.push(o.pop())
	}
}

// prepend puts the items of o, which is emptied, in front.
func (l *list) prepend(o *list) {
	for x := l.take(); x.n > 0; {
		o.push(x.pop())
	}
	*l = o.take()
}

func (r *run) newItem() *item {
	if r.items.n > 0 {
		return r.items.pop()
	}
	return new(item)
}

// free takes an item whose token is settled, or about to be.
func (r *run) free(it *item) {
	l := it.lane
	l.open--
	r.retire(l)
	*it = item{}
	r.items.push(it)
}
