#!/usr/bin/env bash
# rustc with libFuzzer's counters, as RUSTC_WORKSPACE_WRAPPER: our own code gets them and the libraries do not, which halves
# the time to build. The flags are cargo-fuzz's.
set -euo pipefail
counters=()
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  counters+=("-Cllvm-args=-sanitizer-coverage-$option")
done
exec "$@" -Cpasses=sancov-module "${counters[@]}" --cfg fuzzing
