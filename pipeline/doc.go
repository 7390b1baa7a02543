// Package pipeline runs the stages of a system: a stage receives messages, handles each with a function, sends what the function returns
// and then settles its input. [Run] is to stages what io.Copy is to streams.
//
// What comes in is settled only when everything that came of it is durable. So nothing is lost when a stage, its machine or its broker
// fails at any moment, and what was under way then comes again: outputs can be doubled, never missing. A resend keeps the message's ID,
// by which the next stage can tell; a message that comes again is handled again, and makes new ones.
//
// The package depends on package stagebus and the standard library only: it is given a [stagebus.Consumer] and a [stagebus.Producer], of
// whatever broker.
package pipeline
