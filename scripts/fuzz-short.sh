#!/bin/sh
# fuzz-short.sh [SECONDS]: runs every fuzz target for that long (20), starting from its seeds. Needs a nightly compiler;
# without one it says so and leaves it at the replay of the seeds, which is an ordinary test (tests/corpora.rs).
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
seconds=${1:-20}
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "skipped: fuzzing needs a nightly compiler (rustup toolchain install nightly); the seeds were replayed by tests/corpora.rs"
  exit 0
fi
scripts/cargo-tool.sh cargo-fuzz 0.13.2
PATH=$target/tools/bin:$PATH
# Our code has no unsafe block, so the address sanitizer would only double the time; overflow checks stay on.
options="--sanitizer none --debug-assertions"
export CARGO_TARGET_DIR="$target/fuzz"
cargo +nightly fuzz build $options
log=$target/fuzz/log
for name in $(cd fuzz/seeds && ls -d -- */ | tr -d /); do
  mkdir -p "$target/fuzz-corpus/$name"
  # What it finds by itself goes to the first folder; the seeds are only read.
  if cargo +nightly fuzz run $options "$name" "$target/fuzz-corpus/$name" "fuzz/seeds/$name" -- \
    -max_total_time="$seconds" -max_len=70000 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
    printf '    %s: %s inputs in %s s, none failed\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds"
  else
    tail -n 60 "$log"
    printf '    %s FAILED: put the input named above into fuzz/seeds/%s/ and mend what it shows\n' "$name" "$name" >&2
    exit 1
  fi
done
