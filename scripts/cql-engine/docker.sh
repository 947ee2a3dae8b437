# Read by ../cql-engine.sh: nodes of ScyllaDB, each a container, in a Docker network of this engine's own.
# shellcheck shell=sh disable=SC2154 # $here, $run, $net come from there
# From 2025.4 on a conditional write works whichever way a keyspace is laid out.
image=scylladb/scylla:2025.4
# One name for each folder, so that several engines do not meet.
group=limpet-cql-$(printf '%s' "$run" | cksum | cut -d' ' -f1)

engine_name() { echo "ScyllaDB ($image)"; }

engine_fetch() {
  docker_answers || cannot "no Docker engine answers"
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    say "fetching $image"
    docker pull --quiet "$image" >/dev/null || cannot "docker could not fetch $image"
  fi
  say "CQL engine: $(engine_name)"
}

engine_here() {
  docker_answers || cannot "no Docker engine answers"
  docker image inspect "$image" >/dev/null 2>&1 || cannot "$image is missing: scripts/cql-engine.sh fetch gets it"
  docker network inspect "$group" >/dev/null 2>&1 || docker network create "$group" >/dev/null || fail "docker network"
}

engine_remove() { docker network rm "$group" >/dev/null 2>&1; }

node_id() { printf '%s-%s\n' "$group" "$1"; }
node_log() { printf "'docker logs %s'\n" "$(node_id "$1")"; }

# The address outlives the container's death, as long as nothing else joins this network.
node_host() {
  host=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(node_id "$1")" 2>/dev/null)
  if [ -n "$host" ]; then
    printf '%s\n' "$host" | tee "$(node_dir "$1")/host"
  else
    cat "$(node_dir "$1")/host"
  fi
}

node_state() {
  case $(docker inspect -f '{{.State.Status}}' "$(node_id "$1")" 2>/dev/null) in
    running | restarting) echo running ;;
    paused) echo paused ;;
    *) echo dead ;;
  esac
}

node_start() {
  if docker inspect "$(node_id "$1")" >/dev/null 2>&1; then
    docker start "$(node_id "$1")" >/dev/null
    return
  fi
  seeds=
  [ "$1" = 1 ] || seeds=--seeds=$(node_host 1)
  # shellcheck disable=SC2086 # no seeds, no argument
  docker run --detach --name "$(node_id "$1")" --network "$group" "$image" \
    --smp 1 --memory 512M --overprovisioned 1 --developer-mode 1 \
    --authenticator PasswordAuthenticator --authorizer CassandraAuthorizer $seeds >/dev/null
}

node_kill() { docker kill "$(node_id "$1")" >/dev/null; }
node_pause() { docker pause "$(node_id "$1")" >/dev/null; }
node_resume() { docker unpause "$(node_id "$1")" >/dev/null; }
node_stop_ask() { [ "$(node_state "$1")" != paused ] || node_resume "$1"; }
node_stop_wait() { [ "$(node_state "$1")" = dead ] || docker stop --time 20 "$(node_id "$1")" >/dev/null; }
node_remove() { docker rm --force --volumes "$(node_id "$1")" >/dev/null 2>&1; }

node_tool() {
  n=$1
  shift
  docker exec "$(node_id "$n")" nodetool "$@"
}

# Each node counts what it coordinates, so the sum is what was asked of the engine.
engine_count() {
  case $1 in CASWrite | CASRead | Write | Read | RangeSlice | '') ;; *) usage ;; esac
  for n in $(nodes); do
    [ "$(node_state "$n")" = running ] || continue
    python -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' \
      "http://$(node_host "$n"):9180/metrics"
  done | awk -v one="$1" '
    /^scylla_storage_proxy_coordinator_cas_write_latency_count/ { sum["CASWrite"] += $NF }
    /^scylla_storage_proxy_coordinator_cas_read_latency_count/ { sum["CASRead"] += $NF }
    /^scylla_storage_proxy_coordinator_write_latency_count/ { sum["Write"] += $NF }
    /^scylla_storage_proxy_coordinator_read_latency_count/ { sum["Read"] += $NF }
    # Not every version tells these apart; then it is 0.
    /^scylla_storage_proxy_coordinator_range_latency_count/ { sum["RangeSlice"] += $NF }
    END { sum["RangeSlice"] += 0; for (s in sum) if (one == "") print s, sum[s]; else if (s == one) print sum[s] }' | sort
}
