# Read by ../cql-engine.sh: nodes of Apache Cassandra, each a JVM of its own, from the jars on Maven Central.
# shellcheck shell=sh disable=SC2154 # $here, $target, $run, $net come from there
lib=$target/cql-engine/lib
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

engine_name() { echo "Apache Cassandra $(basename "$lib"/cassandra-all-*.jar | sed 's/cassandra-all-//; s/.jar$//')"; }

engine_fetch() {
  want=$(cksum <"$here/scripts/cql-engine/pom.xml")
  if [ "$(cat "$lib/complete" 2>/dev/null)" = "$want" ]; then
    say "CQL engine: $(engine_name), $lib"
    return 0
  fi
  command -v mvn >/dev/null 2>&1 || cannot "mvn is missing: install maven (Debian's name) and run this again"
  say "fetching Apache Cassandra's jars (66 MB) into $lib"
  rm -rf "$lib" && mkdir -p "${lib%/*}"
  mvn -B -q -f "$here/scripts/cql-engine/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$lib" >"$lib.log" 2>&1 </dev/null ||
    cannot "mvn could not fetch the jars: see $lib.log"
  # Written last: a half-filled folder is filled anew.
  echo "$want" >"$lib/complete"
  say "CQL engine: $(engine_name), $lib"
}

# Cassandra 5 runs on Java 11 and 17; the options below are those of 17.
engine_here() {
  [ -e "$lib/complete" ] || cannot "the engine's jars are missing: scripts/cql-engine.sh fetch gets them"
  command -v "$java" >/dev/null 2>&1 || cannot "java is missing: install openjdk-17-jre-headless (Debian's name)"
  command -v python3 >/dev/null 2>&1 || [ -x "$target/venv/bin/python" ] || cannot "python3 is missing"
  version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "$version" = 17 ] || cannot "java is version ${version:-unknown}, and Cassandra 5 wants 17: set JAVA_HOME"
}

engine_remove() { :; }

node_host() { printf '%s.%s\n' "$net" "$1"; }
node_log() { printf '%s/log/*.log\n' "$(node_dir "$1")"; }
node_id() {
  if [ "$(node_state "$1")" = dead ]; then echo -; else cat "$(node_dir "$1")/pid"; fi
}

# JMX always listens on 127.0.0.1, so the port has to tell the engines apart.
jmx_port() { echo $((17200 + ${net##*.} * 4 + $1)); }

node_state() {
  pid=$(cat "$(node_dir "$1")/pid" 2>/dev/null) || pid=
  # A number may belong to another process by now.
  if [ -z "$pid" ] || ! tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" |
    grep -qxF -- "-Dcassandra.storagedir=$(node_dir "$1")"; then
    echo dead
  elif grep -q '^State:[[:space:]]*T' "/proc/$pid/status" 2>/dev/null; then
    echo paused
  else
    echo running
  fi
}

# What Cassandra needs opened on Java 17.
opened() {
  for name in java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/java.lang.ref java.base/sun.nio.ch \
    java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server \
    java.sql/java.sql jdk.unsupported/sun.misc jdk.attach/sun.tools.attach; do
    printf ' --add-exports %s=ALL-UNNAMED' "$name"
  done
  for name in lang lang.module lang.reflect io nio util util.concurrent; do
    printf ' --add-opens java.base/java.%s=ALL-UNNAMED' "$name"
  done
  for name in java.base/sun.nio.ch java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect \
    java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar \
    jdk.management/com.sun.management.internal; do
    printf ' --add-opens %s=ALL-UNNAMED' "$name"
  done
}

write_logback() {
  cat >"$1/logback.xml" <<END
<configuration>
  <appender name="FILE" class="ch.qos.logback.core.rolling.RollingFileAppender">
    <file>$1/log/system.log</file>
    <rollingPolicy class="ch.qos.logback.core.rolling.FixedWindowRollingPolicy">
      <fileNamePattern>$1/log/system.log.%i</fileNamePattern><minIndex>1</minIndex><maxIndex>2</maxIndex>
    </rollingPolicy>
    <triggeringPolicy class="ch.qos.logback.core.rolling.SizeBasedTriggeringPolicy">
      <maxFileSize>20MB</maxFileSize>
    </triggeringPolicy>
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="FILE"/></root>
</configuration>
END
}

# A third of the token ring each: with as many replicas as nodes the shares are equal anyhow, and the ring is the same after a wipe.
token() {
  case $1 in
    1) echo -9223372036854775808 ;;
    2) echo -3074457345618258603 ;;
    3) echo 3074457345618258602 ;;
  esac
}

write_yaml() { # write_yaml N DIR
  cat >"$2/cassandra.yaml" <<END
cluster_name: limpet
num_tokens: 1
initial_token: "$(token "$1")"
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
dynamic_snitch: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$(node_host 1)"
listen_address: $(node_host "$1")
rpc_address: $(node_host "$1")
storage_port: 7000
start_native_transport: true
native_transport_port: 9042
commitlog_sync: periodic
commitlog_sync_period: 10000ms
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
data_file_directories: ["$2/data"]
commitlog_directory: "$2/commitlog"
saved_caches_directory: "$2/saved_caches"
hints_directory: "$2/hints"
cdc_raw_directory: "$2/cdc_raw"
paxos_variant: v2
auto_snapshot: false
hinted_handoff_enabled: false
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
key_cache_size: 4MiB
concurrent_reads: 8
concurrent_writes: 8
file_cache_size: 32MiB
networking_cache_size: 16MiB
$(limits)
END
  [ ! -e "$run/more.yaml" ] || cat "$run/more.yaml" >>"$2/cassandra.yaml"
}

# ScyllaDB's limits, or tighter ones. They hold for ordinary roles only: superusers, and the anonymous user of an engine
# without log-in, are spared them.
limits() {
  cat <<END
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
maximum_timestamp_fail_threshold: 3d
tombstone_warn_threshold: 1000
tombstone_failure_threshold: 10000
read_thresholds_enabled: true
local_read_size_warn_threshold: 1MiB
local_read_size_fail_threshold: 100MiB
simplestrategy_enabled: false
zero_ttl_on_twcs_enabled: false
allow_filtering_enabled: false
partition_keys_in_select_fail_threshold: 100
in_select_cartesian_product_fail_threshold: 100
cas_contention_timeout: 1000ms
write_request_timeout: 2000ms
read_request_timeout: 5000ms
range_request_timeout: 10000ms
END
}

# Who may log in is stored on every node, and a quorum of them has to be there to store the first.
superuser_after() { if [ "$(cat "$run/nodes")" = 1 ]; then echo 0; else echo 500; fi; }

# A session of its own and files instead of our pipes: whoever called may end without the node, and need not wait for it.
node_start() {
  dir=$(node_dir "$1")
  mkdir -p "$dir/log"
  write_logback "$dir"
  write_yaml "$1" "$dir"
  rm -f "$dir/pid"
  # shellcheck disable=SC2046 # options
  setsid sh -c 'echo $$ >"$0/pid" && exec "$@"' "$dir" "$java" -Xms512m -Xmx512m -Xss512k -XX:+UseG1GC \
    -XX:+PerfDisableSharedMem -Djdk.attach.allowAttachSelf=true $(opened) -Dio.netty.tryReflectionSetAccessible=true \
    -Djava.net.preferIPv4Stack=true -Djava.io.tmpdir="$dir" -Dcassandra-foreground=yes \
    "-Dcassandra.config=file://$dir/cassandra.yaml" "-Dcassandra.storagedir=$dir" "-Dcassandra.logdir=$dir/log" \
    "-Dlogback.configurationFile=$dir/logback.xml" "-Dcassandra.jmx.local.port=$(jmx_port "$1")" \
    -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1000 -Dcassandra.skip_sync=true \
    -Dcassandra.superuser_setup_delay_ms="$(superuser_after)" -Dcassandra.shutdown_announce_in_ms=0 \
    "-Dcassandra.system_auth.default_rf=$(cat "$run/nodes")" -Dcassandra.auth_bcrypt_gensalt_log2_rounds=4 \
    -cp "$lib/*" org.apache.cassandra.service.CassandraDaemon </dev/null >"$dir/log/out.log" 2>&1 &
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ ! -s "$dir/pid" ] || return 0
    sleep 0.1
  done
  return 1
}

signal() { # signal NAME N
  [ "$(node_state "$2")" = dead ] || kill -s "$1" "$(node_id "$2")"
}

node_pause() { signal STOP "$1"; }
node_resume() { signal CONT "$1"; }
node_stop_ask() {
  signal TERM "$1"
  # A stopped process hears of it only when it goes on.
  signal CONT "$1"
}

gone() { # gone N SECONDS: waits until the process has ended
  tries=$(($2 * 10))
  while [ "$(node_state "$1")" != dead ]; do
    [ $tries -gt 0 ] || return 1
    tries=$((tries - 1))
    sleep 0.1
  done
}

node_kill() {
  signal KILL "$1"
  gone "$1" 10 || fail "node $1 does not end"
  rm -f "$(node_dir "$1")/pid"
}

node_stop_wait() { gone "$1" 20 || node_kill "$1"; }
node_remove() { :; }

node_tool() { # node_tool N ARG...
  n=$1
  shift
  # shellcheck disable=SC2046 # options
  "$java" -Xmx128m $(opened) -Duser.home="$(node_dir "$n")" -Dcassandra.storagedir="$(node_dir "$n")" \
    "-Dlogback.configurationFile=$(node_dir "$n")/logback.xml" -cp "$lib/*" \
    org.apache.cassandra.tools.NodeTool -h 127.0.0.1 -p "$(jmx_port "$n")" "$@"
}

# Each node counts what it coordinates, so the sum is what was asked of the engine.
engine_count() {
  case $1 in CASWrite | CASRead | Write | Read | RangeSlice | '') ;; *) usage ;; esac
  for n in $(nodes); do
    [ "$(node_state "$n")" = running ] || continue
    for scope in ${1:-CASWrite CASRead Write Read RangeSlice}; do
      node_tool "$n" sjk mx -b "org.apache.cassandra.metrics:type=ClientRequest,scope=$scope,name=Latency" -f Count -mg |
        awk -v scope="$scope" 'NF == 1 && $1 ~ /^[0-9]+$/ { print scope, $1 }'
    done
  done | awk -v one="${1:-}" '{ sum[$1] += $2 } END { for (s in sum) print (one == "" ? s " " sum[s] : sum[s]) }' | sort
}
