package integration

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stagebus/stagebus/integration/broker"
)

// demoStages are the processes that the demo can be divided into.
var demoStages = []string{"preprocess", "train-1", "train-2", "infer-1", "infer-2", "postprocess"}

// demoSettings make a run of a few seconds, long enough to kill something in the middle.
var demoSettings = []string{"--size", "small", "--steps", "300"}

// demoSummary is what is looked at of the demo's own summary.
type demoSummary struct {
	Trained struct {
		Digest     string
		Difference float64
		After      float64 `json:"perplexity_after"`
		Unigram    float64 `json:"perplexity_unigram"`
	}
	Deployed []struct{ Worker, Digest string }
	Answers  []struct {
		ID     int
		Answer string
		Tokens int
	}
	Topics []struct {
		Topic    string
		Received int64
	}
	Claims []struct {
		Name, Detail string
		Holds        bool
	}
	Killed int
}

func demoParse(t *testing.T, out string) demoSummary {
	t.Helper()
	var s demoSummary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// demoInMemory is the run that all others must equal.
var demoInMemory = sync.OnceValues(func() (string, error) {
	file, err := cliBinary()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(file, append([]string{"demo", "--output", "json", "--quiet"}, demoSettings...)...).Output()
	return string(out), err
})

// same checks what the demo claims, not by its own word alone, and that it is what the run in memory came to.
func (s *demoSummary) same(t *testing.T) {
	t.Helper()
	out, err := demoInMemory()
	if err != nil {
		t.Fatalf("in memory: %v", err)
	}
	memory := demoParse(t, out)
	if s.Trained.After > 0.8*s.Trained.Unigram || s.Trained.Difference > 1e-6 {
		t.Errorf("perplexity %v of %v, two workers %v from one", s.Trained.After, s.Trained.Unigram, s.Trained.Difference)
	}
	if len(s.Deployed) != 2 || s.Deployed[0].Digest != s.Trained.Digest || s.Deployed[1].Digest != s.Trained.Digest {
		t.Errorf("trained are %s, deployed %+v", s.Trained.Digest, s.Deployed)
	}
	if s.Trained.Digest != memory.Trained.Digest || !slices.Equal(s.Answers, memory.Answers) {
		t.Errorf("parameters %s and answers %+v, in memory %s and %+v", s.Trained.Digest, s.Answers, memory.Trained.Digest, memory.Answers)
	}
	for _, c := range s.Claims {
		if !c.Holds {
			t.Errorf("%+v", c)
		}
	}
	for _, topic := range s.Topics {
		if topic.Received == 0 {
			t.Errorf("nothing came through topic %q", topic.Topic)
		}
	}
}

// demoAddress has the management API in it, where there is one: queues are seen by it alone.
func demoAddress(b *broker.Broker) string {
	if m, ok := b.Management(); ok {
		return b.URL() + "?management=" + url.QueryEscape(m)
	}
	return b.URL()
}

// demoLeft checks that nothing of a run is on the broker any more.
func demoLeft(t *testing.T, b *broker.Broker, prefix string) {
	t.Helper()
	if _, ok := b.Management(); !ok && strings.HasPrefix(b.URL(), "amqp") {
		return
	}
	for line := range strings.Lines(cliOK(t, demoAddress(b), "", "topics", "list")) {
		if strings.Contains(line, prefix) {
			t.Errorf("left on the broker: %s", line)
		}
	}
}

// In one process, with workers that are killed in the middle.
func TestDemo(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		prefix := cliName(t)
		args := append([]string{"demo", "--broker", b.URL(), "--prefix", prefix, "--chaos", "--output", "json"}, demoSettings...)
		r := cli(t, "", "", args...)
		if r.code != 0 {
			t.Fatalf("%+v", r)
		}
		s := demoParse(t, r.out)
		s.same(t)
		if s.Killed != 2 || len(s.Claims) != 5 {
			t.Errorf("%+v", s)
		}
		demoLeft(t, b, prefix)
	})
}

// demoProcess is one stage as a process.
type demoProcess struct {
	name      string
	c         *exec.Cmd
	out, errs *watched
}

func demoStart(ctx context.Context, t *testing.T, address, prefix, stage string) *demoProcess {
	t.Helper()
	file, err := cliBinary()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"demo", "--prefix", prefix, "--stage", stage, "--output", "json"}
	if stage == demoStages[0] {
		args = append(args, demoSettings...)
	}
	p := &demoProcess{name: stage, c: exec.CommandContext(ctx, file, args...)}
	p.out, p.errs = newWatched(), newWatched()
	p.c.Stdout, p.c.Stderr = p.out, p.errs
	p.c.Env = append(os.Environ(), "STAGEBUS_BROKER="+address)
	if err := p.c.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// In six processes, the last of the pipeline started first, and a training worker killed in the middle that starts again.
func TestDemoInSixProcesses(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		ctx, cancel := context.WithTimeout(t.Context(), cliTimeout)
		defer cancel()
		prefix := cliName(t)
		processes := map[string]*demoProcess{}
		for _, stage := range slices.Backward(demoStages) {
			processes[stage] = demoStart(ctx, t, b.URL(), prefix, stage)
		}
		last := processes["postprocess"]
		last.errs.await(t, "step 60 of 300") // it has a line of its own, since the held-out text is looked at there

		victim := processes["train-1"]
		if err := victim.c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := victim.c.Wait(); err == nil || victim.c.ProcessState.Exited() {
			t.Errorf("it was not killed: %v, %s", err, victim.errs.String())
		}
		if strings.Contains(last.errs.String(), "step 300 of 300") {
			t.Error("training was over before the worker was killed")
		}
		processes["train-1"] = demoStart(ctx, t, b.URL(), prefix, "train-1")

		for name, p := range processes {
			if err := p.c.Wait(); err != nil {
				t.Errorf("%s: %v: %s", name, err, p.errs.String())
			}
			if name != "postprocess" && p.out.String() != "" {
				t.Errorf("%s has printed %q", name, p.out.String())
			}
		}
		if t.Failed() {
			return
		}
		s := demoParse(t, last.out.String())
		s.same(t)
		demoLeft(t, b, prefix)
	})
}

// Stopped in the middle, it leaves nothing on the broker.
func TestDemoInterrupted(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker.Broker) {
		ctx, cancel := context.WithTimeout(t.Context(), cliTimeout)
		defer cancel()
		file, err := cliBinary()
		if err != nil {
			t.Fatal(err)
		}
		prefix := cliName(t)
		p := &demoProcess{c: exec.CommandContext(ctx, file, "demo", "--broker", b.URL(), "--prefix", prefix, "--size", "small", "--steps", "1000000")}
		p.out, p.errs = newWatched(), newWatched()
		p.c.Stdout, p.c.Stderr = p.out, p.errs
		if err := p.c.Start(); err != nil {
			t.Fatal(err)
		}
		p.errs.await(t, "step 0 of")
		if err := p.c.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := p.c.Wait(); p.c.ProcessState.ExitCode() != 1 || !strings.HasSuffix(p.errs.String(), "stagebus: stopped by a signal before the end\n") {
			t.Errorf("%v: %s", err, p.errs.String())
		}
		demoLeft(t, b, prefix)
	})
}
