package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// devBroker is a `stagebus dev` as a process.
type devBroker struct {
	t       *testing.T
	dir     string
	process *exec.Cmd
	address string
	url     string
	log     bytes.Buffer
}

func startDev(t *testing.T) *devBroker {
	t.Helper()
	d := &devBroker{t: t, dir: filepath.Join(t.TempDir(), "dev"), address: "127.0.0.1:0"}
	d.start()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("stagebus dev said:\n%s", &d.log)
		}
	})
	return d
}

// start returns when the broker is ready. The second time it takes the address of the first.
func (d *devBroker) start() {
	d.t.Helper()
	file, err := cliBinary()
	if err != nil {
		d.t.Fatal(err)
	}
	d.process = exec.Command(file, "dev", "--dir", d.dir, "--listen", d.address, "--partitions", "2", "--output", "json", "--verbose")
	out, err := d.process.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.process.Stderr = &d.log
	if err := d.process.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		d.kill()
		d.t.Fatal(err)
	}
	var ready struct{ Broker, Address string }
	if err := json.Unmarshal(line, &ready); err != nil {
		d.t.Fatalf("%v: %s", err, line)
	}
	d.address, d.url = ready.Address, ready.Broker
}

// kill is kill -9.
func (d *devBroker) kill() {
	if d.process.ProcessState == nil {
		_ = d.process.Process.Kill()
		_ = d.process.Wait() // killed
	}
}

// values are what lines carry, in order of the alphabet: two partitions have none.
func values(lines []kafkaLine) []string {
	var vs []string
	for _, l := range lines {
		vs = append(vs, string(l.Value))
	}
	slices.Sort(vs)
	return vs
}

func sortedLines(s string) []string {
	vs := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	slices.Sort(vs)
	return vs
}

// Other clients send to topics that they let the broker make, receive, and share groups; a kill takes nothing from them.
func TestDevWithPeers(t *testing.T) {
	eachPeer(t, kafkaPeers, func(t *testing.T, p peer) {
		p.command(t) // skips before a broker starts
		d := startDev(t)
		const n = 60
		var theirs []kafkaLine
		var ours strings.Builder
		for i := range n {
			theirs = append(theirs, kafkaLine{Key: fmt.Append(nil, i%7), Value: fmt.Appendf(nil, "theirs %02d", i)})
			fmt.Fprintf(&ours, "ours %02d\n", i)
		}
		publishLines(t, p, theirs, d.address, "t")
		cliOK(t, d.url, ours.String(), "publish", "--topic", "t")
		want := append(sortedLines(ours.String()), values(theirs)...)
		if got := sortedLines(cliOK(t, d.url, "", "consume", "--topic", "t", "--group", "g")); !slices.Equal(got, want) {
			t.Errorf("ours received %q", got)
		}
		if got := values(consumeLines[kafkaLine](t, p, 2*n, d.address, "t")); !slices.Equal(got, want) {
			t.Errorf("theirs received %q", got)
		}
		if got := devMember(t, d, p, "other", 2*n); !slices.Equal(got, want) {
			t.Errorf("their group received %q", got)
		}

		d.kill()
		d.start()
		if got := values(consumeLines[kafkaLine](t, p, 2*n, d.address, "t")); !slices.Equal(got, want) {
			t.Errorf("after a kill there is %q", got)
		}
		publishLines(t, p, []kafkaLine{{Value: []byte("new")}}, d.address, "t")
		if got := cliOK(t, d.url, "", "consume", "--topic", "t", "--group", "g"); got != "new\n" {
			t.Errorf("after a kill our group received %q", got)
		}
		if got := devMember(t, d, p, "other", 1); !slices.Equal(got, []string{"new"}) {
			t.Errorf("after a kill their group received %q", got)
		}
	})
}

// devMember has the peer join a group until it has received n messages, and leave.
func devMember(t *testing.T, d *devBroker, p peer, group string, n int) (got []string) {
	t.Helper()
	member := p.start(t, "member", d.address, "t", group)
	for len(got) < n {
		var l kafkaLine
		if err := json.Unmarshal([]byte(member.next(t)), &l); err != nil {
			t.Fatal(err)
		}
		if l.Assigned != nil {
			t.Logf("%s has partitions %v of %q", p.name, l.Assigned, group)
		} else {
			got = append(got, string(l.Value))
		}
	}
	member.end(t)
	slices.Sort(got)
	return got
}

func TestDevWithKcat(t *testing.T) {
	needCommand(t, "kcat")
	d := startDev(t)
	kcat := func(stdin string, args ...string) string {
		t.Helper()
		r := cliRun(t, stdin, os.Environ(), "kcat", append([]string{"-b", d.address}, args...)...)
		if r.code != 0 {
			t.Fatalf("kcat %v: %+v", args, r)
		}
		return r.out
	}
	var lines strings.Builder
	for i := range 500 {
		fmt.Fprintf(&lines, "k%d:message %03d\n", i%11, i)
	}
	want := sortedLines(lines.String())
	kcat(lines.String(), "-P", "-t", "t", "-K:", "-X", "enable.idempotence=true")
	for range 2 {
		if got := sortedLines(kcat("", "-C", "-t", "t", "-e", "-K:", "-o", "beginning")); !slices.Equal(got, want) {
			t.Errorf("%d messages: %q", len(got), got)
		}
		if out := kcat("", "-L"); !strings.Contains(out, `topic "t" with 2 partitions`) {
			t.Errorf("listed %s", out)
		}
		d.kill()
		d.start()
	}
	// A group, whose offsets a kill doesn't move.
	member := []string{"-G", "g", "-X", "auto.offset.reset=earliest", "-e", "-K:", "t"}
	if got := sortedLines(kcat("", member...)); !slices.Equal(got, want) {
		t.Errorf("the group received %d messages: %q", len(got), got)
	}
	d.kill()
	d.start()
	cliOK(t, d.url, "", "publish", "--topic", "t", "--key", "new", "one more")
	if got := kcat("", member...); got != "new:one more\n" {
		t.Errorf("after a kill the group received %q", got)
	}
	if r := cli(t, d.url, "", "publish", "--topic", "nobody", "x"); r.code != 1 || !strings.Contains(r.err, "stagebus topics declare nobody") {
		t.Errorf("our command lets no topic be made: %+v", r)
	}
}
