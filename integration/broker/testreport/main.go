// Command testreport runs go test in one module after the other and reports for a reader: failures in full when they
// happen, one line of progress for each package, then what was skipped and why, and at the end go test's own lines.
//
//	testreport .,integration -race -count=1 ./...
//
// The first argument names the folders of the modules, the others are go test's. It fails when one of them failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: testreport DIR[,DIR...] ARGUMENTS-OF-GO-TEST...")
		os.Exit(2)
	}
	r := newReport(os.Stdout)
	code := 0
	for dir := range strings.SplitSeq(os.Args[1], ",") {
		if err := test(r, dir, os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "testreport: go test in %s: %v\n", dir, err)
			code = 1
		}
	}
	r.summary()
	os.Exit(code)
}

func test(r *report, dir string, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := read(r, out); err != nil {
		return err
	}
	return cmd.Wait()
}

// read feeds the events of go test to the report. What is no event is passed on: go test prints some errors as they are.
func read(r *report, in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.event(e)
			} else {
				r.print(line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
