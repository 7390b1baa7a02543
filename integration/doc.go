// Package integration holds the tests that need real brokers, the peers' clients and the tools that start them. It is a
// module of its own so that none of its dependencies reach a user of stagebus.
package integration
