#!/bin/sh
# fuzz-short.sh [SECONDS]: runs every fuzz target for that long (20), starting from its seeds. Needs a nightly compiler;
# without one it says so and leaves it at the replay of the seeds, which is an ordinary test (tests/corpora.rs).
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
seconds=${1:-20}
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "skipped: fuzzing needs a nightly compiler (rustup toolchain install nightly); the seeds were replayed by tests/corpora.rs"
  exit 0
fi
scripts/cargo-tool.sh cargo-fuzz 0.13.2
PATH=$target/tools/bin:$PATH
for name in $(cd fuzz/seeds && ls -d -- */ | tr -d /); do
  printf '    %s for %s s\n' "$name" "$seconds"
  mkdir -p "$target/fuzz-corpus/$name"
  # What it finds by itself goes to the first folder; the seeds are only read.
  CARGO_TARGET_DIR=$target/fuzz cargo +nightly fuzz run --debug-assertions "$name" \
    "$target/fuzz-corpus/$name" "fuzz/seeds/$name" -- -max_total_time="$seconds" -max_len=70000 -rss_limit_mb=2048 \
    -print_final_stats=0 -verbosity=0
done
