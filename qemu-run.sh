#!/usr/bin/env bash
# Boots Warmbus in QEMU. `./qemu-run.sh --help` tells the options; file names
# in them are relative to the directory that it is called from.
set -euo pipefail
root=$(dirname "$(readlink -f "$0")")
if ! command -v cargo >/dev/null; then
    echo "error: cargo is missing: install Rust with rustup" >&2
    exit 2
fi
quiet=--quiet
if [ ! -x "${CARGO_TARGET_DIR:-$root/target}/debug/xtask" ]; then
    echo "first start: building the runner" >&2
    quiet=
fi
exec cargo run ${quiet:+"$quiet"} --manifest-path "$root/Cargo.toml" --package xtask -- run "$@"
