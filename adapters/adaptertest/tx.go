package adaptertest

import "github.com/stagebus/stagebus"

func canTx(c stagebus.Capabilities) bool { return c.Transactions }

var txCases = []Case{
	{Name: "tx/commit", Proves: "what a transaction settled and submitted becomes visible together, at Commit", Needs: canTx, run: commitCase, refused: noTxCase},
	{Name: "tx/abort", Proves: "after Abort what was submitted isn't there, and what was settled comes again", Needs: canTx, run: abortCase, refused: noTxCase},
	{Name: "tx/close", Proves: "closing a transaction without Commit is an Abort", Needs: canTx, run: txCloseCase, refused: noTxCase},
}

func (e *env) tx(topic string) stagebus.Tx {
	e.Helper()
	co := stagebus.ConsumerOptions{Topics: []string{topic}, Drain: shortDrain}
	po := stagebus.ProducerOptions{}
	if e.h.Consumer != nil {
		e.h.Consumer(&co)
	}
	if e.h.Producer != nil {
		e.h.Producer(&po)
	}
	tx, err := e.b.Tx(e.ctx(), po, co)
	if err != nil {
		e.Fatalf("open a transaction: %v", err)
	}
	e.Cleanup(func() { e.closeIt("transaction", tx.Close) })
	return tx
}

func (e *env) commit(tx stagebus.Tx) {
	e.Helper()
	if err := tx.Commit(e.ctx()); err != nil {
		e.Fatalf("commit: %v", err)
	}
}

// submit leaves a message in the transaction. Its outcome may wait for Commit.
func (e *env) submit(p stagebus.Producer, topic string, bodies ...string) {
	e.Helper()
	if err := p.Submit(e.ctx(), texts(topic, bodies...), func([]stagebus.Outcome) {}); err != nil {
		e.Fatalf("submit in a transaction: %v", err)
	}
}

func commitCase(e *env) {
	in, out := e.topic(), e.topic()
	p, c := e.producer(), e.consumer(out, "")
	e.sendTexts(p, in, "in 0", "in 1")
	tx := e.tx(in)
	for i := range 2 {
		d := e.receive(tx.Consumer(), 1)[0]
		e.submit(tx.Producer(), out, "from "+string(d.Body), "also from "+string(d.Body))
		e.settle(tx.Consumer(), stagebus.Done, d)
		e.quiet(c, "before Commit")
		e.commit(tx)
		if got := e.take(c, 2); got[0] != "from "+string(d.Body) || got[1] != "also from "+string(d.Body) {
			e.Errorf("after Commit %d: %q", i, got)
		}
	}
	e.commit(tx) // of nothing
	e.closeIt("transaction", tx.Close)
	e.nothingBefore(p, e.consumer(in, ""), in, "all were settled and committed")
	e.nothingBefore(p, c, out, "all committed messages have been received")
}

func abortCase(e *env) {
	in, out := e.topic(), e.topic()
	p, c := e.producer(), e.consumer(out, "")
	e.sendTexts(p, in, "in")
	tx := e.tx(in)
	d := e.receive(tx.Consumer(), 1)[0]
	e.submit(tx.Producer(), out, "dropped")
	e.settle(tx.Consumer(), stagebus.Done, d)
	if err := tx.Abort(e.ctx()); err != nil {
		e.Fatalf("abort: %v", err)
	}
	e.nothingBefore(p, c, out, "after Abort")
	d = e.receive(tx.Consumer(), 1)[0]
	if string(d.Body) != "in" {
		e.Errorf("after Abort: %s", describe(&d))
	}
	e.submit(tx.Producer(), out, "kept")
	e.settle(tx.Consumer(), stagebus.Done, d)
	e.commit(tx)
	if got := e.take(c, 1); got[0] != "kept" {
		e.Errorf("after Abort and Commit: %q", got)
	}
	e.closeIt("transaction", tx.Close)
	e.nothingBefore(p, e.consumer(in, ""), in, "settled and committed at last")
	e.nothingBefore(p, c, out, "after Abort and Commit")
}

func txCloseCase(e *env) {
	in, out := e.topic(), e.topic()
	p, c := e.producer(), e.consumer(out, "")
	e.sendTexts(p, in, "in")
	tx := e.tx(in)
	e.settle(tx.Consumer(), stagebus.Done, e.receive(tx.Consumer(), 1)...)
	e.submit(tx.Producer(), out, "dropped")
	e.closeIt("transaction", tx.Close)
	e.closeIt("transaction, again", tx.Close)
	e.nothingBefore(p, c, out, "the transaction was closed without Commit")
	if got := e.take(e.consumer(in, ""), 1); got[0] != "in" {
		e.Errorf("got %q", got)
	}
}

func noTxCase(e *env) {
	_, err := e.b.Tx(e.ctx(), stagebus.ProducerOptions{}, stagebus.ConsumerOptions{Topics: []string{e.topic()}})
	e.want(err, "a transaction on a broker without", stagebus.ErrUnsupported)
}
