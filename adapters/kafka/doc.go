// Package kafka is the stagebus adapter for Apache Kafka 2.5 and newer, on the protocol layer and the connection pool of
// segmentio/kafka-go. Producing, fetching and the consumer group are its own.
//
// A topic is a Kafka topic of the same name ("topic:NAME" names one that others chose), a key chooses the partition as the Java
// client does, and a group is a consumer group whose offsets are the settled prefix of each partition. [stagebus.Retry] copies
// a message to the topic TOPIC--GROUP--retry-MS, where it waits; [stagebus.Reject] copies it to TOPIC--GROUP--dlq.
//
// Produced messages are acknowledged by all in-sync replicas. A connection that breaks while a request is under way makes
// its messages [stagebus.ErrUncertain]: the adapter never sends them again by itself.
package kafka
