# Sourced by integration/brokers: one Kafka broker that is its own controller (KRaft), from the jars alone.
# shellcheck shell=bash disable=SC2154,SC1091

sasl_user=stagebus sasl_password=stagebus-secret

kafka_program() { echo java; }

kafka_ports() {
  pick_port kafka_port "${STAGEBUS_BROKERS_KAFKA_PORT:-}"
  pick_port sasl_port "${STAGEBUS_BROKERS_KAFKA_SASL_PORT:-}"
  pick_port tls_port "${STAGEBUS_BROKERS_KAFKA_TLS_PORT:-}"
  pick_port controller_port
}

kafka_variables() (
  . "$dir/kafka/ports"
  variable STAGEBUS_TEST_KAFKA_URL "kafka://127.0.0.1:$kafka_port"
  variable STAGEBUS_TEST_KAFKA_SASL_URL "kafka://$sasl_user:$sasl_password@127.0.0.1:$sasl_port"
  variable STAGEBUS_TEST_KAFKA_TLS_URL "kafkas://127.0.0.1:$tls_port"
)

# An open port is not enough: requests are answered once the controller has let the broker in. ApiVersions v0 is the
# one that every version answers; the answer begins with a length and our correlation id, 1.
kafka_ready() (
  . "$dir/kafka/ports"
  [[ $(ask "$kafka_port" '\0\0\0\12\0\22\0\0\0\0\0\1\377\377' 8) == *00000001 ]] && listening "$sasl_port" && listening "$tls_port"
)

# The flags are for a broker that serves tests: small, and quick to start. An archive of the loaded classes (AppCDS)
# saves about half of the start; it holds only for the same flags and the same class path.
kafka_java() {
  echo -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
}

kafka_start() {
  local java archive=$kafka_home/classes.jsa new
  java=$(java_17)
  { kafka_configuration && printf '%s\n' "${STAGEBUS_BROKERS_EXTRA:-}"; } >"$dir/kafka/server.properties" # the last of equal keys holds
  kafka_format
  if [[ ! -f $archive ]]; then
    # Once per machine. A broker that cannot write it is as good, only slower to start.
    new=$dir/kafka/classes.jsa
    kafka_run "-XX:ArchiveClassesAtExit=$new"
    await kafka
    stop_broker kafka
    mv "$new" "$archive" || say 'no archive of classes was written: Kafka starts slowly'
  fi
  kafka_run "-XX:SharedArchiveFile=$archive" -Xshare:auto
}

kafka_run() { # kafka_run FLAG...
  # shellcheck disable=SC2046
  launch kafka "$java" $(kafka_java) "$@" -cp "$kafka_home/libs/*" kafka.Kafka "$dir/kafka/server.properties"
}

# Formatting starts a Java of its own and takes as long as the broker: one formatted directory is kept and copied. It has
# no address in it, because the quorum is a static one, in server.properties.
kafka_format() {
  [[ -f $dir/kafka/data/meta.properties ]] && return
  local formatted=$kafka_home/formatted mechanism scram=()
  if [[ ! -d $formatted ]]; then
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
      scram+=(--add-scram "$mechanism=[name=$sasl_user,password=$sasl_password]")
    done
    rm -rf "$dir/kafka/data"
    # shellcheck disable=SC2046
    "$java" $(kafka_java) -cp "$kafka_home/libs/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qk \
      -c "$dir/kafka/server.properties" "${scram[@]}" >"$dir/kafka/format.log" 2>&1 || { cat "$dir/kafka/format.log" >&2 && die 'formatting failed'; }
    rm -rf "$formatted.new.$$" && cp -r "$dir/kafka/data" "$formatted.new.$$"
    mv -T "$formatted.new.$$" "$formatted" 2>/dev/null || rm -rf "$formatted.new.$$" # another instance was faster
    return
  fi
  rm -rf "$dir/kafka/data" "$dir/kafka/data.new"
  cp -r "$formatted" "$dir/kafka/data.new" && mv "$dir/kafka/data.new" "$dir/kafka/data"
}

kafka_configuration() (
  . "$dir/kafka/ports"
  cat <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:$kafka_port,SASL://127.0.0.1:$sasl_port,TLS://127.0.0.1:$tls_port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAIN://127.0.0.1:$kafka_port,SASL://127.0.0.1:$sasl_port,TLS://127.0.0.1:$tls_port
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
log.dirs=$dir/kafka/data

sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$sasl_user="$sasl_password";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.tls.ssl.client.auth=required
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location=$root/certs/server-keystore.pem
listener.name.tls.ssl.truststore.type=PEM
listener.name.tls.ssl.truststore.location=$root/certs/ca.pem

auto.create.topics.enable=false
delete.topic.enable=true
# The default of 3 s would be waited by the first member of every group of every test.
group.initial.rebalance.delay.ms=0
# The default, 6 s: a test that must see a session time out would take that long.
group.min.session.timeout.ms=500
# After a SIGKILL a broker is let in again only when its former session has ended: 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=1
num.io.threads=2
background.threads=2
# The cleaner takes 128 MB of heap by default.
log.cleaner.dedupe.buffer.size=2097152
CONF
)
