#!/usr/bin/env bash
# Boots Warmbus in QEMU. `./qemu-run.sh --help` lists the options; file names
# in them are relative to the directory that it is called from.
set -euo pipefail
root=$(dirname "$(readlink -f "$0")")
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

# Prints the release of a program of Rust's, and nothing where it does not run.
release() {
    "$1" --version 2>/dev/null | sed -n '1s/^[a-z]* \([0-9.]*\).*/\1/p' || true
}

# Whether the release $1 is not older than what is needed.
is_enough() {
    [ -n "$1" ] && [ "$(printf '%s\n' "$needed" "$1" | sort -V | head -n 1)" = "$needed" ]
}

is_enough_in() {
    is_enough "$(release "$1cargo")" && is_enough "$(release "$1rustc")"
}

# An older Rust may stand before a newer one, or the newer one outside of PATH.
if ! is_enough_in ""; then
    found=
    IFS=: read -ra places <<<"$PATH"
    for place in "${places[@]}" "${CARGO_HOME:-${HOME:-}/.cargo}/bin" /usr/local/bin /usr/bin \
        "${RUSTUP_HOME:-${HOME:-}/.rustup}"/toolchains/*/bin; do
        if is_enough_in "$place/"; then
            found=$place
            break
        fi
    done
    if [ -z "$found" ]; then
        have=$(release rustc)
        ways="with rustup"
        if command -v apt-cache >/dev/null; then
            for version in $(apt-cache madison cargo-web 2>/dev/null | cut -d '|' -f 2); do
                if is_enough "${version%%[+~-]*}"; then
                    ways="with apt-get install cargo-web rustc-web, or $ways"
                    break
                fi
            done
        fi
        echo "error: Rust $needed or newer is needed, and ${have:-none} is here: install it $ways" >&2
        exit 2
    fi
    PATH=$found:$PATH
fi

quiet=--quiet
if [ ! -x "${CARGO_TARGET_DIR:-$root/target}/debug/xtask" ]; then
    if ! echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; then
        echo "error: Rust links with the C compiler cc, and none that works is here:" \
            "on Debian it is in the packages gcc and libc6-dev" >&2
        exit 2
    fi
    echo "first start: building the runner" >&2
    quiet=
fi
exec cargo run ${quiet:+"$quiet"} --manifest-path "$root/Cargo.toml" --package xtask -- run "$@"
