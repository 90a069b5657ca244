#!/usr/bin/env bash
# Builds .cache/peers, a Python environment with the tools that `make bench` compares Muster with. Six gigabytes and
# several minutes, hence only on demand.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(torch==2.11.0 transformers==5.23.0 accelerate datasets scikit-learn pyarrow optuna==5.0.0 'ray[tune]==2.60.0')
recipe="${packages[*]}, layout 1"
home=.cache/peers
stamp=$home/.ready
log=.cache/peers.log

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
    exit 0
fi
mkdir -p .cache
exec 9>.cache/peers.lock
flock -w 1800 9 || { echo "error: another set-up holds .cache/peers.lock for half an hour" >&2; exit 1; }
free_kib=$(df -Pk .cache | awk 'NR==2 {print $4}')
if [ "$free_kib" -lt 12000000 ]; then
    echo "error: the peers need 12 GB of free disk in $PWD/.cache, $((free_kib / 1000000)) GB are left" >&2
    exit 1
fi
echo "      installing the peers (6 GB, some minutes; details in $log)"
rm -rf "$home"
if ! { python3 -m venv "$home" &&
    timeout --foreground 1700 "$home/bin/python" -m pip install --no-cache-dir --no-input --disable-pip-version-check \
        "${packages[@]}"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: the peers could not be installed; the whole log is in $log; run the command again to retry" >&2
    exit 1
fi
echo "$recipe" >"$stamp"
