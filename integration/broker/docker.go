package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// container controls a broker in a container.
type container struct {
	testcontainers.Container
	docker client.APIClient
}

// engine returns the Docker engine that testcontainers uses, nil if none answers.
var engine = sync.OnceValue(func() *testcontainers.DockerProvider {
	log.SetDefault(log.NewNoopLogger()) // its banner would land in every test's output
	p, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if p.Health(ctx) != nil {
		return nil
	}
	return p
})

func dockerAnswers() bool { return engine() != nil }

// startDocker runs a broker in a container, on ports of the host that are chosen here: ports that Docker chooses change
// when a container is started again, and Kafka has to be told its port beforehand, because it tells it to clients.
func startDocker(ctx context.Context, k Kind) (*Instance, error) {
	p := engine()
	if p == nil {
		return nil, errors.New("no Docker engine answers")
	}
	host, err := engineHost(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute) // a pull included: there may be another way yet
	defer cancel()
	var req testcontainers.ContainerRequest
	b := Broker{kind: k, way: Docker}
	if k == AMQP {
		b.vars, req = rabbitmqContainer(host)
	} else {
		b.vars, req = kafkaContainer(host)
	}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true})
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.Terminate(context.WithoutCancel(ctx)))
		}
		return nil, fmt.Errorf("image %s (the reaper's image cannot be had either? TESTCONTAINERS_RYUK_DISABLED=true): %w", req.Image, err)
	}
	i := &Instance{Broker: b, ctl: container{Container: c, docker: p.Client()}}
	if err := ready(ctx, &i.Broker); err != nil {
		err = fmt.Errorf("%w\n%s", err, lastLogs(ctx, c))
		return nil, errors.Join(err, i.end(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// engineHost returns the address where the published ports of containers are. testcontainers takes it for a gateway when it
// seems to run in a container; but the engine may run in that same container, and then the gateway leads out of it.
func engineHost(ctx context.Context, p *testcontainers.DockerProvider) (string, error) {
	host, err := p.DaemonHost(ctx)
	if err != nil || os.Getenv("TESTCONTAINERS_HOST_OVERRIDE") != "" {
		return host, err
	}
	if host == "localhost" {
		return loopback, nil // else a client may try ::1 first
	}
	info, err := p.Client().Info(ctx, client.InfoOptions{})
	if err != nil {
		return "", err
	}
	if ours, err := os.Hostname(); err == nil && ours == info.Info.Name {
		return loopback, nil
	}
	return host, nil
}

const loopback = "127.0.0.1"

func rabbitmqContainer(host string) (map[string]string, testcontainers.ContainerRequest) {
	port, management, metrics := freePort(), freePort(), freePort()
	vars := map[string]string{
		varAMQP:       "amqp://guest:guest@" + net.JoinHostPort(host, port) + "/",
		varManagement: "http://guest:guest@" + net.JoinHostPort(host, management),
		varMetrics:    "http://" + net.JoinHostPort(host, metrics),
	}
	return vars, testcontainers.ContainerRequest{
		Image:              cmp.Or(os.Getenv("STAGEBUS_TEST_RABBITMQ_IMAGE"), "rabbitmq:4-management"),
		ExposedPorts:       []string{"5672/tcp", "15672/tcp", "15692/tcp"},
		HostConfigModifier: publish(host, map[string]string{"5672/tcp": port, "15672/tcp": management, "15692/tcp": metrics}),
	}
}

// kafkaContainer sets all of the broker's configuration: the image drops its defaults at the first variable. The settings
// are those of the native broker, which says why.
func kafkaContainer(host string) (map[string]string, testcontainers.ContainerRequest) {
	port := freePort()
	addr := net.JoinHostPort(host, port)
	return map[string]string{varKafka: "kafka://" + addr}, testcontainers.ContainerRequest{
		Image:              cmp.Or(os.Getenv("STAGEBUS_TEST_KAFKA_IMAGE"), "apache/kafka:4.1.1"),
		ExposedPorts:       []string{"9092/tcp"},
		HostConfigModifier: publish(host, map[string]string{"9092/tcp": port}),
		Env: map[string]string{
			"KAFKA_PROCESS_ROLES":                                    "broker,controller",
			"KAFKA_NODE_ID":                                          "1",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                         "1@localhost:9093",
			"KAFKA_CONTROLLER_LISTENER_NAMES":                        "CONTROLLER",
			"KAFKA_LISTENERS":                                        "PLAIN://:9092,SELF://:9094,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":                             "PLAIN://" + addr + ",SELF://localhost:9094", // it sends itself the ends of transactions
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":                   "PLAIN:PLAINTEXT,SELF:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_INTER_BROKER_LISTENER_NAME":                       "SELF",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "false",
			"KAFKA_DELETE_TOPIC_ENABLE":                              "true",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
			"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":                     "500",
			"KAFKA_BROKER_SESSION_TIMEOUT_MS":                        "3000",
			"KAFKA_BROKER_HEARTBEAT_INTERVAL_MS":                     "500",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":             "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",
			"KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE":                   "2097152",
			"KAFKA_HEAP_OPTS":                                        "-Xmx256m",
		},
	}
}

// publish binds ports of a container to given ports of the host; nobody outside this machine needs a test's broker.
func publish(host string, ports map[string]string) func(*dockercontainer.HostConfig) {
	ip, _ := netip.ParseAddr(host)
	if !ip.IsLoopback() {
		ip = netip.IPv4Unspecified() // the engine is on another machine
	}
	return func(c *dockercontainer.HostConfig) {
		c.PortBindings = network.PortMap{}
		for inside, outside := range ports {
			c.PortBindings[network.MustParsePort(inside)] = []network.PortBinding{{HostIP: ip, HostPort: outside}}
		}
	}
}

// freePort returns a port that nothing listens on. It is below the range that the kernel takes ports of outgoing
// connections from: see pick_port in integration/brokers.
func freePort() string {
	for {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", net.JoinHostPort(loopback, port)); err == nil {
			_ = l.Close()
			return port
		}
	}
}

func (c container) stop(ctx context.Context) error {
	timeout := 60 * time.Second
	if s, err := c.State(ctx); err == nil && s.Paused { // what is paused does not see SIGTERM
		if err := c.resume(ctx); err != nil {
			return err
		}
	}
	return c.Stop(ctx, &timeout)
}

func (c container) start(ctx context.Context) error { return c.Start(ctx) }

func (c container) kill(ctx context.Context) error {
	if _, err := c.docker.ContainerKill(ctx, c.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return err
	}
	// The call only sends the signal.
	wait := c.docker.ContainerWait(ctx, c.GetContainerID(), client.ContainerWaitOptions{})
	select {
	case <-wait.Result:
		return nil
	case err := <-wait.Error:
		return err
	}
}

func (c container) pause(ctx context.Context) error {
	_, err := c.docker.ContainerPause(ctx, c.GetContainerID(), client.ContainerPauseOptions{})
	return err
}

func (c container) resume(ctx context.Context) error {
	_, err := c.docker.ContainerUnpause(ctx, c.GetContainerID(), client.ContainerUnpauseOptions{})
	return err
}

func (c container) end(ctx context.Context) error {
	return c.Terminate(ctx, testcontainers.StopTimeout(0))
}

func lastLogs(ctx context.Context, c testcontainers.Container) []byte {
	r, err := c.Logs(ctx)
	if err != nil {
		return nil
	}
	defer func() { _ = r.Close() }()
	all, _ := io.ReadAll(r)
	return all[max(0, len(all)-3000):]
}
