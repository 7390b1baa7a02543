# Sourced by integration/brokers: a certificate authority for tests, one server and one client certificate of it.
# shellcheck shell=bash disable=SC2154

client_cn=stagebus-client # also the RabbitMQ user that the client certificate logs in as

make_certs() { # make_certs DIR: ca.pem, server.pem, server-key.pem, client.pem, client-key.pem
  local out=$1 new=$1.new
  [[ -f $out/client.pem ]] && openssl x509 -checkend 86400 -noout -in "$out/client.pem" >/dev/null && return
  rm -rf "$new" && mkdir -p "$new"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=stagebus test CA' \
      -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$new/ca-key.pem" -out "$new/ca.pem"
    sign "$new" server localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' serverAuth,clientAuth
    sign "$new" client "$client_cn" "subjectAltName=DNS:$client_cn" clientAuth
  } >"$root/certs.log" 2>&1 || { tail -n 20 "$root/certs.log" >&2 && die "openssl failed: $root/certs.log"; }
  # Kafka reads one file with the key and the chain, and knows keys in PKCS#8 only, which is what openssl writes.
  cat "$new/server-key.pem" "$new/server.pem" "$new/ca.pem" >"$new/server-keystore.pem"
  # The brokers may run as another user than the tests.
  chmod 644 "$new"/*.pem
  rm -rf "$out" && mv "$new" "$out"
}

sign() { # sign DIR NAME CN SAN USAGE
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$1/$2-key.pem" -out "$1/$2.csr"
  openssl x509 -req -in "$1/$2.csr" -CA "$1/ca.pem" -CAkey "$1/ca-key.pem" -CAcreateserial -days 365 -out "$1/$2.pem" \
    -extfile <(printf '%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=%s\n' "$4" "$5")
  rm "$1/$2.csr"
}
