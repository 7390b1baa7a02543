# Sourced by integration/brokers: one RabbitMQ node, as Debian packages it (3.10 in Debian 12, 4.0 in Debian 13).
# shellcheck shell=bash disable=SC2154,SC1091

amqp_program() { echo beam.smp; }

amqp_ports() {
  pick_port amqp_port "${STAGEBUS_BROKERS_AMQP_PORT:-}"
  pick_port amqps_port "${STAGEBUS_BROKERS_AMQPS_PORT:-}"
  pick_port management_port "${STAGEBUS_BROKERS_MANAGEMENT_PORT:-}"
  pick_port prometheus_port
  pick_port dist_port
  pick_port epmd_port
}

amqp_variables() (
  . "$dir/amqp/ports"
  variable STAGEBUS_TEST_AMQP_URL "amqp://guest:guest@127.0.0.1:$amqp_port/"
  variable STAGEBUS_TEST_AMQPS_URL "amqps://guest:guest@127.0.0.1:$amqps_port/"
  variable STAGEBUS_TEST_AMQP_MANAGEMENT "http://guest:guest@127.0.0.1:$management_port"
  variable STAGEBUS_TEST_AMQP_METRICS "http://127.0.0.1:$prometheus_port"
)

# The first frame of a connection comes only once the node has booted, plugins and definitions included; the port of the
# management plugin can lag behind.
amqp_ready() (
  . "$dir/amqp/ports"
  [[ $(ask "$amqp_port" 'AMQP\0\0\11\1' 1) == 01 ]] && listening "$amqps_port" && listening "$management_port"
)

ask() { # ask PORT BYTES N: sends the bytes (as printf takes them), prints the first N of the answer in hex
  # shellcheck disable=SC2016
  timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "$2" >&3 && head -c "$3" <&3 | od -An -tx1 | tr -d " \n"' _ "$@" 2>/dev/null || true
}

amqp_start() (
  local home=$dir/amqp
  . "$home/ports"
  mkdir -p "$home/log" "$home/conf.d"
  { amqp_configuration && printf '%s\n' "${STAGEBUS_BROKERS_EXTRA:-}"; } >"$home/rabbitmq.conf"
  amqp_definitions >"$home/definitions.json"
  echo '[rabbitmq_management,rabbitmq_prometheus,rabbitmq_auth_mechanism_ssl].' >"$home/enabled_plugins"
  export HOME=$home # the Erlang cookie is kept there
  export RABBITMQ_NODENAME=stagebus-$name@localhost RABBITMQ_DIST_PORT=$dist_port
  export RABBITMQ_MNESIA_BASE=$home/db RABBITMQ_LOG_BASE=$home/log RABBITMQ_PID_FILE=$home/pid
  export RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf RABBITMQ_CONFIG_FILES=$home/conf.d RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins
  # An own epmd: a shared one would be killed, paused and counted with whichever node started it.
  export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1
  export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
  launch amqp "$rabbitmq_bin/rabbitmq-server"
)

amqp_configuration() {
  cat <<CONF
listeners.tcp.default = 127.0.0.1:$amqp_port
listeners.ssl.default = 127.0.0.1:$amqps_port
ssl_options.cacertfile = $root/certs/ca.pem
ssl_options.certfile = $root/certs/server.pem
ssl_options.keyfile = $root/certs/server-key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
ssl_cert_login_from = common_name
management.tcp.ip = 127.0.0.1
management.tcp.port = $management_port
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $prometheus_port
load_definitions = $dir/amqp/definitions.json
# The default, 50 MB, but said: a nearly full disk must fail tests at once, not block their publishers.
disk_free_limit.absolute = 50MB
CONF
}

# Users come from definitions: `rabbitmqctl add_user` takes seconds and would have to be repeated.
amqp_definitions() {
  cat <<JSON
{"vhosts": [{"name": "/"}],
 "users": [
  {"name": "guest", "password_hash": "$(password_hash guest)", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "administrator"},
  {"name": "$client_cn", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ""}],
 "permissions": [
  {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
  {"user": "$client_cn", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}]}
JSON
}

password_hash() { # RabbitMQ's form: base64 of four bytes of salt and the SHA-256 of salt and password
  local salt='\x73\x62\x75\x73'
  { printf '%b' "$salt" && { printf '%b' "$salt" && printf '%s' "$1"; } | openssl dgst -sha256 -binary; } | openssl base64 -A
}
