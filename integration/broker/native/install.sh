# Sourced by integration/brokers: puts on the machine what is missing. It needs the network only for that.
# shellcheck shell=bash disable=SC2154

kafka_version=${STAGEBUS_BROKERS_KAFKA_VERSION:-4.1.1}
kafka_home=$root/cache/kafka-$kafka_version
rabbitmq_bin=/usr/lib/rabbitmq/bin # not /usr/sbin: the wrappers there insist on the user "rabbitmq" and on Debian's paths

install_for() { # install_for KIND...
  local kind packages=()
  command -v openssl >/dev/null || packages+=(openssl)
  for kind in "$@"; do
    case $kind in
      amqp) [[ -x $rabbitmq_bin/rabbitmq-server ]] || packages+=(rabbitmq-server) ;;
      kafka)
        java_17 >/dev/null || packages+=(default-jre-headless)
        [[ -d $kafka_home/libs ]] || command -v mvn >/dev/null || packages+=(maven)
        ;;
    esac
  done
  if ((${#packages[@]})); then apt_install "${packages[@]}"; fi
  if [[ " $* " == *' kafka '* ]]; then kafka_install; fi
}

java_17() { # prints the path of a Java that runs Kafka 4; the first in PATH may be an older one
  local java version
  for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
    [[ -x $java ]] || continue
    version=$("$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1)
    if ((${version:-0} >= 17)); then echo "$java" && return; fi
  done
  return 1
}

apt_install() {
  local sudo=() policy=/usr/sbin/policy-rc.d fenced=
  command -v apt-get >/dev/null || die "missing: $*. This is no Debian: install them, or use Docker, or set STAGEBUS_TEST_AMQP_URL and STAGEBUS_TEST_KAFKA_URL"
  if ((EUID)); then sudo=(sudo -n); fi
  say "installs $*"
  # The package would start a system-wide RabbitMQ on 5672; we start our own.
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    fenced=1
  fi
  local status=0
  {
    "${sudo[@]}" apt-get update -qq &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  } >"$root/apt.log" 2>&1 || status=$?
  if [[ -n $fenced ]]; then "${sudo[@]}" rm -f "$policy"; fi
  if ((status)); then tail -n 20 "$root/apt.log" >&2 && die "apt-get failed: $root/apt.log"; fi
  if [[ " $* " == *' rabbitmq-server '* && -d /run/systemd/system ]]; then
    "${sudo[@]}" systemctl disable rabbitmq-server >/dev/null 2>&1 || true # nor should it start with the machine
  fi
}

# Kafka's own archive is on no mirror of packages, but its jars are on Maven Central, and the jars are all it takes.
kafka_install() {
  [[ -d $kafka_home/libs ]] && return
  say "fetches Kafka $kafka_version from Maven Central"
  local new=$root/cache/kafka.new
  rm -rf "$new" "$kafka_home" && mkdir -p "$new"
  mvn -q -B -f "$here/broker/native/kafka-pom.xml" "-Dkafka.version=$kafka_version" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    "-DoutputDirectory=$new/libs" >"$root/maven.log" 2>&1 || { tail -n 20 "$root/maven.log" >&2 && die "Maven failed: $root/maven.log"; }
  mv "$new" "$kafka_home"
}
