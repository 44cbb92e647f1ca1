#!/usr/bin/env bash
# Runs the fuzz targets (fuzz/). Stops at the first finding and says where it is.
#
#   scripts/fuzz.sh smoke                      every target for a few seconds, as `make test` does
#   scripts/fuzz.sh long SECONDS [TARGET...]   all or some, with AddressSanitizer, as `make fuzz` does
#
# Both start from fuzz/seeds. The smoke run forgets what it learns, always draws the same random numbers and ends after the
# same number of runs, so that it fails because of a change and hardly ever by chance; the long one keeps what it learns in
# fuzz/corpus. The smoke run counts coverage in our own code (fuzz/instrument.sh); the long one in the libraries too, the
# codecs' C and C++ among them, with AddressSanitizer. That takes clang, as gcc has no such counters, and cargo-fuzz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
target_dir=${CARGO_TARGET_DIR:-$root/target}
host=$(rustc -vV | sed -n 's/^host: //p')
export PATH="$root/.deps/bin:$PATH"

die() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

# build COMMAND...: all targets.
build() {
  # The libraries under test are those that ship; Cargo adds what only the targets need, which asks the index once.
  [ fuzz/Cargo.lock -nt Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
  "$@" >"$scratch/build" 2>&1 || {
    cat "$scratch/build" >&2
    die "the targets could not be built"
  }
}

# run PROGRAM ARGUMENTS...: one libFuzzer run, and one line about it.
run() {
  local program=$1 target log runs edges
  shift
  target=$(basename "$program")
  log=$root/fuzz/artifacts/$target.log
  mkdir -p "fuzz/artifacts/$target"
  if ! "$program" "$@" -max_len=8192 -timeout=10 -malloc_limit_mb=256 -print_final_stats=1 \
    -artifact_prefix="fuzz/artifacts/$target/" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    die "$target: a finding, see fuzz/artifacts/$target.log; again: $program fuzz/artifacts/$target/FILE"
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  # A build without counters, or without seeds, would find nothing for ever and look well.
  [ "${edges:-0}" -ge 100 ] || die "$target: covers only ${edges:-0} edges, see fuzz/artifacts/$target.log"
  printf 'fuzz: %-12s %9s runs, %5s edges, nothing found\n' "$target" "$runs" "$edges"
}

smoke() {
  # About ten seconds each on one core; the slow ones need fewer.
  local -A runs=([association]=6000 [deflate]=30000 [jpegxl]=3000 [renderer]=5000)
  RUSTC_WORKSPACE_WRAPPER=$root/fuzz/instrument.sh build \
    cargo build --manifest-path fuzz/Cargo.toml --target-dir "$target_dir/fuzz"
  for target in "${targets[@]}"; do
    mkdir "$scratch/$target"
    while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    (
      run "$target_dir/fuzz/debug/$target" "$scratch/$target" "fuzz/seeds/$target" \
        -runs="${runs[$target]:-50000}" -seed=1 -rss_limit_mb=512
    ) || touch "$scratch/failed" &
  done
  wait
  [ ! -e "$scratch/failed" ] || exit 1
}

long() {
  local seconds=${1:?how many seconds?}
  shift
  # AddressSanitizer needs a flag that stable compilers have, but hide.
  export RUSTC_BOOTSTRAP=1
  command -v clang >/dev/null && command -v clang++ >/dev/null ||
    die "clang is missing (Debian: apt-get install clang libclang-rt-dev; scripts/setup.sh fuzz does)"
  local triple=${host//-/_}
  local flags="-fsanitize=address,fuzzer-no-link -fsanitize-ignorelist=$root/fuzz/uninstrumented.txt"
  flags+=" -fsanitize-coverage-ignorelist=$root/fuzz/uninstrumented.txt"
  export "CC_$triple=clang" "CXX_$triple=clang++" "CFLAGS_$triple=$flags" "CXXFLAGS_$triple=$flags"
  # Codecs give memory back when the process ends; leaks are looked for elsewhere, by watching it grow.
  export ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}
  build cargo fuzz build --target-dir "$target_dir/fuzz-long" --sanitizer address
  for target in "${@:-${targets[@]}}"; do
    mkdir -p "fuzz/corpus/$target"
    run "$target_dir/fuzz-long/$host/release/$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -max_total_time="$seconds" -rss_limit_mb=2048
  done
}

targets=()
for file in fuzz/fuzz_targets/*.rs; do
  targets+=("$(basename "$file" .rs)")
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
case ${1:-} in
  smoke | long) "$@" ;;
  *) die "usage: scripts/fuzz.sh smoke | long SECONDS [TARGET...]" ;;
esac
