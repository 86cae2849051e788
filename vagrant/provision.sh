#!/usr/bin/env bash
# Makes a Debian 12 machine ready for `cargo xtask run` and `cargo xtask test`; run it as often as you like.
# Usage: provision.sh [WORKSPACE]
set -euo pipefail

cd "${1:-"$(dirname "$0")/.."}"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Any cargo from 1.95 on will do; without one, Debian's. The rest is for xtask to find out.
if ! command -v cargo >/dev/null; then
  as_root apt-get -qq update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    cargo-web rustc-web gcc libc6-dev
fi
cargo xtask setup
