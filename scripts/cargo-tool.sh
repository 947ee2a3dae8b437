#!/bin/sh
# cargo-tool.sh NAME VERSION: has that cargo tool in TARGET/tools/bin, built once, without optimisation (half the time).
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
name=$1
version=$2
if [ "$("$target/tools/bin/$name" --version 2>/dev/null || true)" = "$name $version" ]; then
  exit 0
fi
printf '    building %s %s into %s\n' "$name" "$version" "$target/tools"
cargo install "$name" --version "$version" --locked --debug --quiet --force \
  --root "$target/tools" --target-dir "$target/tools/build"
rm -rf "$target/tools/build"
