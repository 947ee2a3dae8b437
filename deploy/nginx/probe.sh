#!/bin/sh
# probe.sh MACHINES SERVERS [NGINX ARGUMENT...]: nginx itself never asks whether a machine is well; this does, and tells nginx.
#   MACHINES   a line for each machine: its --gwmp address, and the URL of its readiness
#                10.0.0.1:1700 http://10.0.0.1:1702/readyz
#   SERVERS    the file that nginx includes; written anew, and nginx reloaded, when a machine fails or is well again
# A machine is out after two failed probes in a row, and in again after two good ones. If all fail, all stay: that may be the
# network of this machine, and there is nothing better. Limpet's own balancers cover for each other meanwhile.
# PROBE_SECONDS between two rounds (1). It wants curl, and runs until it is stopped (limpet-probe.service).
set -eu
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
machines=$1
servers=$2
shift 2
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
trap 'exit 0' TERM INT

listed() { grep -v '^[[:space:]]*\(#\|$\)' "$machines"; }

# judge ADDRESS OK: keeps how often in a row the machine was not what it is taken for, and what it is taken for.
judge() {
  was=$(cat "$state/$1.is" 2>/dev/null || echo up)
  count=$(cat "$state/$1.count" 2>/dev/null || echo 0)
  if [ "$2" = "$was" ]; then count=0; else count=$((count + 1)); fi
  if [ "$count" -ge 2 ]; then
    was=$2
    count=0
    echo "$1 is $was"
  fi
  echo "$was" >"$state/$1.is"
  echo "$count" >"$state/$1.count"
}

# Side by side, for machines that hang must not add up; the braces, so that `wait` is the shell that started them.
round() {
  listed | {
    while read -r address url; do
      (if curl -sf -o /dev/null --max-time 1 "$url"; then echo up; else echo down; fi >"$state/$address.now") &
    done
    wait
  }
  listed | while read -r address _; do judge "$address" "$(cat "$state/$address.now")"; done
}

write_servers() {
  any=$(listed | while read -r address _; do grep -x up "$state/$address.is" || true; done)
  listed | while read -r address _; do
    if [ -n "$any" ] && [ "$(cat "$state/$address.is")" = down ]; then
      echo "server $address down;"
    else
      echo "server $address max_fails=1 fail_timeout=5s;"
    fi
  done
}

while :; do
  round
  write_servers >"$state/servers"
  if ! cmp -s "$state/servers" "$servers"; then
    cat "$state/servers" >"$servers"
    nginx -t -q "$@" && nginx -s reload "$@" && echo "nginx has been told"
  fi
  sleep "${PROBE_SECONDS:-1}"
done
