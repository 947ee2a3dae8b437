#!/bin/sh
# step.sh NAME COMMAND...: says what is done, does it, says how long it took.
set -u
name=$1
shift
printf '\n==> %s\n' "$name"
start=$(date +%s)
"$@"
status=$?
took=$(($(date +%s) - start))
if [ "$status" -eq 0 ]; then
  printf '==> %s: done in %d s\n' "$name" "$took"
else
  printf '==> %s: FAILED with status %d after %d s\n' "$name" "$status" "$took" >&2
fi
exit "$status"
