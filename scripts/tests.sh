#!/bin/sh
# tests.sh: runs all tests of the workspace, as `cargo test --workspace` does, in about half the time.
#
# Most of the time of the target `cluster` goes by waiting: for windows, for time limits, for servers that start. Everything else is
# run beside it. What is mostly work for the processor gets only the time that is left (SCHED_IDLE, or nice where there is none), since
# a server that is late because of it would look like one that is dead.
# Where there is a file system in memory, temporary files go there: how long a busy disk takes to sync says nothing of the code.
# What is run beside is printed when `cluster` is through (TARGET/tests/beside has it at once). All of it is run, whatever fails.
set -u
cd "$(dirname "$0")/.." || exit 1
cargo=${CARGO:-cargo}
out=${CARGO_TARGET_DIR:-target}/tests
mkdir -p "$out"

# What is run beside `cluster` as it is: real processes, in real time.
waiting='protocol device_stack blackbox python'

run() { $cargo test --workspace --locked --no-fail-fast "$@"; }

# targets NAME...: what cargo has to be told.
targets() {
  for target in "$@"; do printf ' --test %s' "$target"; done
}

beside() {
  computing=
  for target in $($cargo metadata --no-deps --format-version 1 --locked | tr '{' '\n' |
    sed -n 's/.*"kind":\["test"\].*"name":"\([a-z0-9_]*\)".*/\1/p' | sort -u); do
    case " cluster $waiting " in *" $target "*) ;; *) computing="$computing $target" ;; esac
  done
  if [ -z "$computing" ]; then
    echo 'tests.sh: cargo metadata lists no tests' >&2
    return 1
  fi
  # shellcheck disable=SC2046,SC2086 # lists of words
  run $(targets $waiting)
  status=$?
  if ! chrt -i -p 0 $$ 2>/dev/null; then renice -n 19 -p $$ >/dev/null; fi
  # shellcheck disable=SC2046,SC2086 # lists of words
  run --lib --bins $(targets $computing) || status=$?
  run --doc || status=$?
  return "$status"
}

if [ "${1:-}" = beside ]; then
  beside
  exit
fi

$cargo test --workspace --locked --no-run || exit

# Half of the memory is what it takes as a rule; containers often have 64 MB of it, which is too little.
memory=/dev/shm
ours=
free=$(df -Pk "$memory" 2>/dev/null | awk '$1 == "tmpfs" { print $4 }')
if [ -w "$memory" ] && [ "${free:-0}" -gt 4000000 ]; then
  ours=$(mktemp -d "$memory/limpet-tests.XXXXXX") || exit
  export TMPDIR="$ours"
fi

# In a process group of its own, so that all of it ends with this.
setsid scripts/tests.sh beside >"$out/beside" 2>&1 &
other=$!
trap 'kill -- "-$other" 2>/dev/null; [ -z "$ours" ] || rm -rf "$ours"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

run --test cluster
status=$?
printf '\n--> run beside\n\n'
tail -n +1 -f "$out/beside" --pid="$other"
wait "$other" || status=$?
exit "$status"
