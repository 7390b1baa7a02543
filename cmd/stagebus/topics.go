package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/stagebus/stagebus"
)

func (p *program) topicsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "topics",
		Short: "List, describe, declare and delete topics",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	p.brokerFlags(c)
	c.AddCommand(p.topicsListCommand(), p.topicsDescribeCommand(), p.topicsDeclareCommand(), p.topicsDeleteCommand())
	return c
}

var errNotYet = errors.New("nothing was deleted: add --yes")

const (
	incomplete = "this may not be all"
	groupsLeft = "groups that aren't known keep their queues"
)

func (p *program) topicsListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List topics, one a line",
		Long: `list prints the names of the topics, with what the broker says of them without asking for each. The text is for
people and may change; the JSON, one object a line, stays.`,
		Args: cobra.NoArgs,
	}
	c.RunE = p.does(func(ctx context.Context, _ []string) error {
		return p.admin(ctx, incomplete, func(ctx context.Context, a stagebus.Admin) error {
			infos, err := a.List(ctx)
			if err != nil {
				return err
			}
			slices.SortFunc(infos, func(a, b stagebus.TopicInfo) int { return strings.Compare(a.Name, b.Name) })
			if p.json() {
				return p.printJSON(infos)
			}
			var rows bytes.Buffer
			for _, i := range infos {
				fmt.Fprintf(&rows, "%s\t%s\n", i.Name, i.Kind)
			}
			return p.printTable(&rows)
		})
	})
	return c
}

func (p *program) topicsDescribeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "describe TOPIC...",
		Short: "Show partitions, groups and how far they are",
		Long: `describe prints each topic's partitions with the offset of the first message kept and of the next one sent, and its
groups with their depth, the messages that they have not settled yet. The text is for people and may change; the JSON, one
object a line, stays.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeTopics,
	}
	c.RunE = p.does(func(ctx context.Context, topics []string) error {
		return p.admin(ctx, incomplete, func(ctx context.Context, a stagebus.Admin) error {
			var infos []stagebus.TopicInfo
			for _, t := range topics {
				info, err := a.Describe(ctx, t)
				if err != nil {
					return err
				}
				infos = append(infos, info)
			}
			if p.json() {
				return p.printJSON(infos)
			}
			var rows bytes.Buffer
			for _, i := range infos {
				describe(&rows, i)
			}
			return p.printTable(&rows)
		})
	})
	return c
}

func describe(w *bytes.Buffer, i stagebus.TopicInfo) {
	fmt.Fprintf(w, "%s (%s)\n", i.Name, i.Kind) // no tab: its length is not that of a column
	for _, part := range i.Partitions {
		fmt.Fprintf(w, "  partition %d\tfirst %d\tnext %d\n", part.ID, part.First, part.Next)
	}
	for _, g := range i.Groups {
		fmt.Fprintf(w, "  group %s\tdepth %d\tmembers %d\n", g.Name, g.Depth, g.Members)
	}
}

func (p *program) topicsDeclareCommand() *cobra.Command {
	var spec stagebus.TopicSpec
	c := &cobra.Command{
		Use:   "declare TOPIC...",
		Short: "Make topics that don't exist",
		Long: `declare makes topics, and on RabbitMQ the queues of their groups, which keep messages from then on. What exists already
is fine if it has the same properties, and an error if not.`,
		Example: `  stagebus topics declare prompts --partitions 4
  stagebus topics declare prompts --group trainer --group archive`,
		Args: cobra.MinimumNArgs(1),
	}
	f := c.Flags()
	f.IntVar(&spec.Partitions, "partitions", 0, "number of partitions (default: the broker's)")
	f.StringArrayVar(&spec.Groups, "group", nil, "`group` besides the default one; may be repeated")
	f.StringToStringVar(&spec.Config, "config", nil, "the broker's own setting as `name=value`; may be repeated")
	c.RunE = p.does(func(ctx context.Context, topics []string) error {
		return p.admin(ctx, incomplete, func(ctx context.Context, a stagebus.Admin) error {
			for _, t := range topics {
				spec.Name = t
				if err := a.Declare(ctx, spec); err != nil {
					return err
				}
				if err := p.did(map[string]any{"declared": t}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return c
}

func (p *program) topicsDeleteCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics with their messages",
		Long: `delete removes topics, their messages and their groups' places; dead letters stay. Without --yes it only says what would
go, and its exit code is 2.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeTopics,
	}
	c.Flags().BoolVar(&yes, "yes", false, "delete")
	c.RunE = p.does(func(ctx context.Context, topics []string) error {
		return p.admin(ctx, groupsLeft, func(ctx context.Context, a stagebus.Admin) error {
			for _, t := range topics {
				if yes {
					if err := a.Delete(ctx, t); err != nil {
						return err
					}
					if err := p.did(map[string]any{"deleted": t}); err != nil {
						return err
					}
					continue
				}
				info, err := a.Describe(ctx, t)
				if err != nil {
					return err
				}
				if p.json() {
					if err := p.printLines(newTopicRecord(info)); err != nil {
						return err
					}
					continue
				}
				p.notef("would delete %q: %s", t, contents(info))
			}
			if !yes {
				return &usageError{errNotYet}
			}
			return nil
		})
	})
	return c
}

// contents says what a topic's end would cost.
func contents(i stagebus.TopicInfo) string {
	var s []string
	var kept int64
	for _, part := range i.Partitions {
		kept += part.Next - part.First
	}
	if len(i.Partitions) > 0 {
		s = append(s, fmt.Sprintf("%d messages", kept))
	}
	for _, g := range i.Groups {
		s = append(s, fmt.Sprintf("group %s with %d unsettled", g.Name, g.Depth))
	}
	if len(s) == 0 {
		return "empty"
	}
	return strings.Join(s, ", ")
}

// admin runs f with the broker's Admin. lack is what to say of its work where the broker couldn't be asked everything.
func (p *program) admin(ctx context.Context, lack string, f func(context.Context, stagebus.Admin) error) (err error) {
	b, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer shut(b, &err)
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	err = f(ctx, b.Admin())
	if err == nil || errors.Is(err, errNotYet) {
		p.tellHeld(lack)
	}
	if errors.Is(err, stagebus.ErrInvalid) {
		return &usageError{err} // nothing but the command line was given to it
	}
	return err
}

// topicRecord is the JSON of a topic. Its fields stay as they are.
type topicRecord struct {
	Name       string            `json:"name"`
	Kind       string            `json:"kind,omitempty"`
	Partitions []partitionRecord `json:"partitions,omitempty"`
	Groups     []groupRecord     `json:"groups,omitempty"`
}

type partitionRecord struct {
	ID    int32 `json:"id"`
	First int64 `json:"first"`
	Next  int64 `json:"next"`
}

type groupRecord struct {
	Name    string `json:"name"`
	Depth   int64  `json:"depth"`
	Members int    `json:"members"`
}

func (p *program) printJSON(infos []stagebus.TopicInfo) error {
	var lines []any
	for _, i := range infos {
		lines = append(lines, newTopicRecord(i))
	}
	return p.printLines(lines...)
}

func newTopicRecord(i stagebus.TopicInfo) topicRecord {
	r := topicRecord{Name: i.Name, Kind: i.Kind}
	for _, part := range i.Partitions {
		r.Partitions = append(r.Partitions, partitionRecord(part))
	}
	for _, g := range i.Groups {
		r.Groups = append(r.Groups, groupRecord(g))
	}
	return r
}

// did prints what was done, which as text goes without saying.
func (p *program) did(result map[string]any) error {
	if !p.json() {
		return nil
	}
	return p.printLines(result)
}

// printLines prints each of vs as JSON on a line of its own.
func (p *program) printLines(vs ...any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, v := range vs {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	_, err := p.out.Write(b.Bytes())
	return outputError(err)
}

// printTable prints rows whose cells end with tabs, with the columns aligned.
func (p *program) printTable(rows *bytes.Buffer) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	if _, err := rows.WriteTo(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range bytes.Lines(b.Bytes()) {
		out.Write(bytes.TrimRight(line, " \n")) // the last cell may be empty
		out.WriteByte('\n')
	}
	_, err := p.out.Write(out.Bytes())
	return outputError(err)
}
