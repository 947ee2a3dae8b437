#!/bin/sh
# cql-engine.sh: a real CQL engine for development and tests, on this machine's loopback. It refuses what ScyllaDB refuses,
# also where it is Cassandra, and is used by an ordinary role: what runs on it runs on both.
#
#   fetch              what the engine consists of: ScyllaDB's image if a Docker engine answers, else Cassandra's jars
#   start [1|3]        starts that many nodes (1) and waits until they do what is asked of them; last line: the URL
#   stop               ends the nodes; their data stays for the next start
#   wipe               ends the nodes and deletes their data
#   status             a line for each node: number, address, running | paused | dead, pid or container
#   url | env          the URL, with user and password | a line for the shell that sets LIMPET_TEST_CQL to it
#   kill N             kill -9, or what comes to that
#   pause N, resume N  SIGSTOP, SIGCONT
#   restart N          starts a dead node again, and waits until it takes part
#   count [SCOPE]      requests since the start, of all nodes: CASWrite, CASRead, Write, Read or RangeSlice
#                      (walks through a table); without SCOPE all of them
#   nodetool N ARG...  Cassandra's own tool
#
# Variables: LIMPET_TEST_CQL    an engine that runs already (cql://user:password@host1,host2, or without cql://): nothing is started
#            LIMPET_CQL_DIR     folder of this engine (TARGET/cql-engine/run)
#            LIMPET_CQL_NET     its loopback addresses (127.0.0, so nodes are 127.0.0.1 ...): several run at once, each
#                               with a folder and addresses of its own
#            LIMPET_CQL_ENGINE  docker | jars, instead of looking
#            LIMPET_CQL_YAML    a file with more lines for cassandra.yaml; read at the first start
#            LIMPET_CQL_WAIT    seconds that a start may take (180)
# Status: 0, 1 = failed, 2 = called wrongly, 3 = cannot be had here (something is missing; what, is said).
set -u
cd "$(dirname "$0")/.." || exit 1
here=$(pwd)
target=${CARGO_TARGET_DIR:-$here/target}
case $target in /*) ;; *) target=$here/$target ;; esac
run=${LIMPET_CQL_DIR:-$target/cql-engine/run}
case $run in /*) ;; *) run=$here/$run ;; esac
net=${LIMPET_CQL_NET:-127.0.0}
wait_s=${LIMPET_CQL_WAIT:-180}

say() { printf '    %s\n' "$*"; }
fail() {
  printf 'cql-engine: %s\n' "$*" >&2
  exit 1
}
# cannot WHAT: what is missing is not a failure of anything that is here.
cannot() {
  printf 'cql-engine: %s\n' "$*" >&2
  exit 3
}
usage() {
  sed -n '2,24s/^# \{0,1\}//p' "$here/scripts/cql-engine.sh" >&2
  exit 2
}

docker_answers() { command -v docker >/dev/null 2>&1 && timeout 10 docker info >/dev/null 2>&1; }

# which_engine: what this folder's nodes were made with, else what was asked for, else what is here.
which_engine() {
  if [ -s "$run/engine" ]; then
    cat "$run/engine"
  elif [ -n "${LIMPET_CQL_ENGINE:-}" ]; then
    printf '%s\n' "$LIMPET_CQL_ENGINE"
  elif docker_answers; then
    echo docker
  else
    echo jars
  fi
}

load_engine() {
  engine=$(which_engine)
  case $engine in
    jars | docker) . "$here/scripts/cql-engine/$engine.sh" ;;
    *) fail "LIMPET_CQL_ENGINE is '$engine': it can be docker or jars" ;;
  esac
}

python() {
  if [ -x "$target/venv/bin/python" ]; then
    "$target/venv/bin/python" "$@"
  else
    python3 "$@"
  fi
}

nodes() { [ ! -s "$run/nodes" ] || seq 1 "$(cat "$run/nodes")"; }
node_dir() { printf '%s/node%s\n' "$run" "$1"; }

# one_of_them N: N is a node of this engine.
one_of_them() {
  for n in $(nodes); do
    [ "$n" != "${1:-}" ] || return 0
  done
  fail "there is no node '${1:-}' in $run"
}

hosts_in() { # hosts_in STATE: the addresses of the nodes that are in that state; STATE empty: of all
  for n in $(nodes); do
    [ -n "$1" ] && [ "$(node_state "$n")" != "$1" ] || node_host "$n"
  done
}

url() {
  if [ -n "${LIMPET_TEST_CQL:-}" ]; then
    printf 'cql://%s\n' "${LIMPET_TEST_CQL#cql://}"
  elif [ -n "$(nodes)" ]; then
    printf 'cql://limpet:limpet@%s\n' "$(hosts_in '' | sed 's/$/:9042/' | paste -sd, -)"
  else
    fail "no engine in $run: start one"
  fi
}

node_wait() { # until the node takes connections
  began_node=$(date +%s)
  until python "$here/scripts/cql-engine/probe.py" 0 NONE "$(node_host "$1")" >/dev/null 2>&1; do
    [ "$(node_state "$1")" = running ] || fail "node $1 ended: see $(node_log "$1")"
    [ $(($(date +%s) - began_node)) -lt "$wait_s" ] || fail "node $1 does not answer after $wait_s s: see $(node_log "$1")"
    sleep 0.3
  done
}

# wait_ready: until the running nodes work together. With a node away, ALL would wait for it in vain.
wait_ready() {
  count=$(nodes | wc -l)
  running=$(hosts_in running)
  level=ALL
  [ "$(echo "$running" | wc -w)" -eq "$count" ] || level=QUORUM
  began=$(date +%s)
  # shellcheck disable=SC2086 # a list of addresses
  until answer=$(python "$here/scripts/cql-engine/probe.py" "$count" "$level" $running 2>&1); do
    for n in $(nodes); do
      [ ! -e "$(node_dir "$n")/wanted" ] || [ "$(node_state "$n")" != dead ] ||
        fail "node $n ended: see $(node_log "$n")"
    done
    [ $(($(date +%s) - began)) -lt "$wait_s" ] || fail "not ready after $wait_s s: $answer"
    sleep 0.3
  done
}

launch() { # launch N: starts the node, if it does not run
  [ "$(node_state "$1")" = dead ] || return 0
  : >"$(node_dir "$1")/wanted"
  node_start "$1" || fail "node $1 does not start: see $(node_log "$1")"
}

start() {
  count=${1:-1}
  case $count in 1 | 3) ;; *) usage ;; esac
  if [ -n "${LIMPET_TEST_CQL:-}" ]; then
    say "LIMPET_TEST_CQL is set: nothing is started"
    url
    return 0
  fi
  engine_here
  mkdir -p "$run" || exit 1
  exec 9>"$run/lock"
  flock 9 || exit 1
  if [ -s "$run/nodes" ] && [ "$(cat "$run/nodes")" != "$count" ]; then
    fail "$run holds an engine of $(cat "$run/nodes") node(s): 'wipe' it first"
  fi
  [ -z "${LIMPET_CQL_YAML:-}" ] || [ -e "$run/more.yaml" ] || cp "$LIMPET_CQL_YAML" "$run/more.yaml" || exit 1
  echo "$engine" >"$run/engine"
  echo "$count" >"$run/nodes"
  began=$(date +%s)
  say "CQL engine: $(engine_name), $count node(s), in $run"
  for n in $(nodes); do
    mkdir -p "$(node_dir "$n")"
    launch "$n" 9>&-
    say "node $n: $(node_host "$n"), started after $(($(date +%s) - began)) s"
    # The others find the cluster through the first.
    [ "$n" != 1 ] || [ "$count" = 1 ] || node_wait "$n"
  done
  wait_ready
  say "ready after $(($(date +%s) - began)) s"
  url
}

stop() {
  for n in $(nodes); do
    rm -f "$(node_dir "$n")/wanted"
    node_stop_ask "$n"
  done
  for n in $(nodes); do
    node_stop_wait "$n"
    say "node $n: ended"
  done
}

wipe() {
  stop
  for n in $(nodes); do node_remove "$n"; done
  [ ! -s "$run/nodes" ] || engine_remove
  rm -rf "$run"
}

status() {
  for n in $(nodes); do
    printf '%s %s %s %s\n' "$n" "$(node_host "$n")" "$(node_state "$n")" "$(node_id "$n")"
  done
}

command=${1:-}
[ $# -eq 0 ] || shift
load_engine
case $command in
  fetch) engine_fetch ;;
  start) start "$@" ;;
  stop) stop ;;
  wipe) wipe ;;
  status) status ;;
  url) url ;;
  env) u=$(url) && printf 'export LIMPET_TEST_CQL=%s\n' "$u" ;;
  kill | pause | resume)
    one_of_them "${1:-}"
    [ "$command" != kill ] || rm -f "$(node_dir "$1")/wanted"
    "node_$command" "$1"
    ;;
  restart)
    one_of_them "${1:-}"
    launch "$1"
    wait_ready
    say "node $1: $(node_host "$1"), takes part again"
    ;;
  count) engine_count "${1:-}" ;;
  nodetool)
    one_of_them "${1:-}"
    node_tool "$@"
    ;;
  *) usage ;;
esac
