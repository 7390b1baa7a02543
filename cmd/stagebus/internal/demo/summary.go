package demo

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stagebus/stagebus/cmd/stagebus/internal/meter"
)

// Summary is what a run came to.
type Summary struct {
	Broker     string     `json:"broker"` // kind of it
	Prefix     string     `json:"prefix"`
	Seconds    float64    `json:"seconds"`
	Trained    *Trained   `json:"trained"`
	Deployed   []Deployed `json:"deployed"`
	Answers    []Answer   `json:"answers"`
	Topics     []Traffic  `json:"topics"`
	Messages   int64      `json:"messages"` // received, of all topics
	Bytes      int64      `json:"bytes"`
	Duplicates int        `json:"duplicates"`     // messages that came again and changed nothing
	Killed     int        `json:"killed"`         // training workers
	Calm       string     `json:"calm,omitempty"` // digest of the parameters of the run without accidents
	Claims     []Claim    `json:"claims"`
}

// Traffic is what went through a topic. Where it has readers in several processes, the times are those of the slowest.
type Traffic struct {
	Topic    string  `json:"topic"` // without the prefix
	Sent     int64   `json:"sent"`
	Received int64   `json:"received"`
	Bytes    int64   `json:"bytes"` // received
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// Claim is something that the demo says of itself, and has looked at.
type Claim struct {
	Name   string `json:"name"`
	Holds  bool   `json:"holds"`
	Detail string `json:"detail"`
}

// The bounds of the claims.
const (
	maxRatio      = 0.8
	maxDifference = 1e-6
)

// Broken returns the claims that don't hold.
func (s *Summary) Broken() []Claim {
	return slices.DeleteFunc(slices.Clone(s.Claims), func(c Claim) bool { return c.Holds })
}

func (r *run) summary(took time.Duration) *Summary {
	c := r.collect
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Summary{
		Broker: r.o.Scheme, Prefix: r.o.Prefix, Seconds: took.Seconds(), Trained: c.trained, Killed: r.killed.get(),
		Deployed: slices.SortedFunc(maps.Values(c.deployed), func(a, b Deployed) int { return cmp.Compare(a.Worker, b.Worker) }),
		Answers:  slices.SortedFunc(maps.Values(c.answers), func(a, b Answer) int { return a.ID - b.ID }),
	}
	processes := map[string][]meter.Topic{r.o.process: r.o.Meter.Topics()}
	for _, e := range c.ended {
		s.Duplicates += e.Duplicates
		if e.Process != r.o.process {
			processes[e.Process] = e.Topics
		}
	}
	s.Topics = traffic(r.o.Prefix, processes)
	for _, t := range s.Topics {
		s.Messages += t.Received
		s.Bytes += t.Bytes
	}
	s.Claims = s.claims()
	return s
}

// traffic adds up what processes counted, in the order in which messages pass the topics.
func traffic(prefix string, processes map[string][]meter.Topic) []Traffic {
	byName := map[string]*Traffic{}
	out := make([]Traffic, len(topics))
	for i, t := range topics {
		out[i].Topic = t
		byName[t] = &out[i]
	}
	for _, ts := range processes {
		for _, t := range ts {
			name, ok := strings.CutPrefix(t.Name, prefix+".")
			if !ok || byName[name] == nil {
				continue
			}
			to := byName[name]
			to.Sent += t.Sent
			to.Received += t.Received
			to.Bytes += t.ReceivedBytes
			to.P50 = max(to.P50, milliseconds(t.Latency.P50))
			to.P99 = max(to.P99, milliseconds(t.Latency.P99))
		}
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s *Summary) claims() []Claim {
	t := s.Trained
	ratio := t.After / t.Unigram
	cs := []Claim{
		{
			"it has learnt", ratio <= maxRatio,
			fmt.Sprintf("held-out perplexity %.1f, of word frequencies alone %.1f: ratio %.3f, at most %.1f", t.After, t.Unigram, ratio, maxRatio),
		},
		{
			"two workers equal one", t.Difference <= maxDifference,
			fmt.Sprintf("after %d steps no parameter is further than %.2g from that of one worker on whole batches, at most %.0e", t.Steps, t.Difference, maxDifference),
		},
	}
	same := len(s.Deployed) > 0
	var who []string
	for _, d := range s.Deployed {
		same = same && d.Digest == t.Digest
		who = append(who, d.Worker)
	}
	cs = append(cs, Claim{"all use the same parameters", same, fmt.Sprintf("training and %s: SHA-256 %.16s…", strings.Join(who, " and "), t.Digest)})
	if !same {
		cs[len(cs)-1].Detail = fmt.Sprintf("training has %.16s…, deployed are %+v", t.Digest, s.Deployed)
	}
	tokens := 0
	for _, a := range s.Answers {
		tokens += a.Tokens
	}
	return append(cs, Claim{
		"every answer is whole", len(s.Answers) == t.Prompts,
		fmt.Sprintf("%d of %d streams came to one end, %d tokens without a gap", len(s.Answers), t.Prompts, tokens),
	})
}

// same is the claim of a run in which so many workers were to be killed.
func (s *Summary) same(killed int) Claim {
	return Claim{
		"accidents change nothing", s.Trained.Digest == s.Calm && s.Killed == killed,
		fmt.Sprintf("%d workers killed and started again, %d gradients came twice; parameters %.16s…, without accidents %.16s…",
			s.Killed, s.Trained.Duplicates, s.Trained.Digest, s.Calm),
	}
}
