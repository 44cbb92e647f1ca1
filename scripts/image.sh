#!/usr/bin/env bash
# Builds the container image, and tries it out.
#
#   scripts/image.sh build [ARGUMENT…]   pacs-gateway:VERSION, by what is here of docker, podman and buildah
#   scripts/image.sh test                runs it as an operator would, and compares (scripts/image_test.py)
#
# ARGUMENTs go to the builder as they are: --build-arg RUST_IMAGE=…, --platform …. The environment chooses the rest:
#
#   IMAGE       name of the image, default pacs-gateway:VERSION
#   BUILDER     command that builds, default the first that works of "docker build", "podman build", "buildah bud --layers"
#   ENGINE      command that runs, default the first that works of docker and podman; buildah's images need podman
#   SOURCE      address of the sources, for the image's label
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'image: %s\n' "$*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image=${IMAGE:-pacs-gateway:$version}

# A client without its daemon is no engine.
works() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

engine() {
  if works docker; then echo docker
  elif works podman; then echo podman
  else return 1
  fi
}

builder() {
  local engine
  if engine=$(engine); then echo "$engine build"
  elif works buildah; then echo "buildah bud --layers"
  else die "neither docker nor podman nor buildah works here"
  fi
}

# The commit, and whether the tree is it.
revision() {
  local commit
  commit=$(git rev-parse --verify --quiet HEAD 2>/dev/null) || { echo unknown; return; }
  [ -z "$(git status --porcelain)" ] || commit+=-modified
  echo "$commit"
}

build() {
  local command
  read -ra command <<<"${BUILDER:-$(builder)}"
  "${command[@]}" --tag "$image" --build-arg VERSION="$version" --build-arg REVISION="$(revision)" \
    --build-arg SOURCE="${SOURCE:-}" "$@" .
  printf 'image: built %s\n' "$image"
}

run_test() {
  local command
  read -ra command <<<"${ENGINE:-$(engine || true)}" || true
  [ ${#command[@]} -gt 0 ] || die "running needs docker or podman, and neither works here"
  exec python3 scripts/image_test.py "$image" "${command[@]}"
}

case ${1:-} in
  build) build "${@:2}" ;;
  test) run_test ;;
  *) die "usage: scripts/image.sh build [ARGUMENT…] | test" ;;
esac
