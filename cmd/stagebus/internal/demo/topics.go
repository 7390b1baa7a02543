package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stagebus/stagebus"
	"github.com/stagebus/stagebus/adapters/amqp"
	"github.com/stagebus/stagebus/adapters/kafka"
)

// Stages are the processes that the demo can be divided into, in the order in which messages pass them.
var Stages = []string{preprocess, train1, train2, infer1, infer2, postprocess}

const (
	preprocess  = "preprocess"
	train1      = "train-1"
	train2      = "train-2"
	infer1      = "infer-1"
	infer2      = "infer-2"
	postprocess = "postprocess"
)

// trainers is how many parts a batch is divided into.
const trainers = 2

// The topics, without the run's prefix. The parts of the demo know one another by these alone.
const (
	topicText       = "text"       // paragraphs as they are
	topicSentences  = "sentences"  // their tokens
	topicDataset    = "dataset"    // vocabulary, word vectors and token ids, in parts
	topicParameters = "parameters" // of each step, with the examples to compute its gradient from
	topicGradients  = "gradients"
	topicProgress   = "progress"   // loss of each step
	topicDeployment = "deployment" // the model as it is to be used, in parts
	topicPrompts    = "prompts"
	topicTokens     = "tokens" // answers, a message for each token
	topicAnswers    = "answers"
	topicReports    = "reports" // what became of each stage
	topicControl    = "control" // the end
)

// reader is a consumer group and what it reads.
type reader struct {
	name   string
	topics []string
}

// readers are all consumer groups but those of control. The members of inference share theirs: a prompt goes to one of them. All other
// groups have one member: each gets everything.
var readers = []reader{
	{"normalise", []string{topicText}},
	{"encode", []string{topicSentences}},
	{"optimise", []string{topicDataset, topicGradients}},
	{train1, []string{topicParameters}},
	{train2, []string{topicParameters}},
	{infer1, []string{topicDeployment}},
	{infer2, []string{topicDeployment}},
	{"infer", []string{topicPrompts}},
	{"write", []string{topicTokens}},
	{"collect", []string{topicProgress, topicAnswers, topicReports}},
}

// control is the group of a stage that hears of the end.
func control(stage string) reader { return reader{"control." + stage, []string{topicControl}} }

var allReaders = func() []reader {
	all := slices.Clone(readers)
	for _, s := range Stages {
		if s != postprocess { // who says it need not be told
			all = append(all, control(s))
		}
	}
	return all
}()

var topics = []string{
	topicText, topicSentences, topicDataset, topicParameters, topicGradients, topicProgress, topicDeployment, topicPrompts, topicTokens,
	topicAnswers, topicReports, topicControl,
}

// readersOf returns the names of the groups that read a topic.
func readersOf(topic string) []string {
	var names []string
	for _, r := range allReaders {
		if slices.Contains(r.topics, topic) {
			names = append(names, r.name)
		}
	}
	return names
}

// group is the name of a reader's consumer group. Kafka's groups are the cluster's, not the topic's, so that it needs the prefix. On RabbitMQ a
// topic always has the queue of its default group, which would fill up if nobody read it: the first reader does.
func group(prefix, name string, topic string, c stagebus.Capabilities) string {
	if !c.History && readersOf(topic)[0] == name {
		return stagebus.DefaultGroup
	}
	return prefix + "." + name
}

// declare makes all topics and groups of a run. Whichever stage starts first does it: a group that is new starts empty on RabbitMQ, so all of
// them must be there before the first message.
func declare(ctx context.Context, b *stagebus.Broker, prefix string) error {
	c := b.Capabilities()
	for _, t := range topics {
		spec := stagebus.TopicSpec{Name: prefix + "." + t}
		for _, r := range readersOf(t) {
			if g := group(prefix, r, t, c); g != stagebus.DefaultGroup {
				spec.Groups = append(spec.Groups, g)
			}
		}
		switch {
		case !c.Partitions:
			// These topics live for a minute, and gigabytes in a quorum's log would be written twice.
			spec.Native = amqp.TopicSpec{QueueType: "classic"}
		case t == topicPrompts:
			spec.Partitions = 2 // one for each inference worker
		default:
			spec.Partitions = 1
		}
		if err := b.Admin().Declare(ctx, spec); err != nil {
			return err
		}
	}
	return nil
}

// native are the consumer's options that only one broker has. A static member of a Kafka group that was killed goes on where it was as soon
// as it is back; else its partition would be nobody's until the session times out.
func (o *Options) native(instance string) any {
	if strings.HasPrefix(o.Scheme, "kafka") {
		return kafka.ConsumerOptions{InstanceID: instance}
	}
	return nil
}

// CheckPrefix returns what is wrong with a prefix.
func CheckPrefix(prefix string) error {
	const most = 100 // the longest name that is made of it has a group as well
	if len(prefix) > most {
		return fmt.Errorf("%d bytes, more than %d", len(prefix), most)
	}
	return stagebus.CheckTopic(prefix + "." + topicText)
}
