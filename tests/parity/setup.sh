#!/usr/bin/env bash
# Builds .cache/parity, a Python environment with the reference libraries (torch and transformers) that
# `make parity` compares Muster with. Several gigabytes and several minutes, hence only on demand.
set -euo pipefail
cd "$(dirname "$0")/../.."
recipe="torch 2.11.0, transformers 4.57.6, safetensors 0.7.0, layout 1"
home=.cache/parity
stamp=$home/.ready
log=.cache/parity.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
mkdir -p .cache
exec 9>.cache/parity.lock
flock -w 1800 9 || { echo "error: another set-up holds .cache/parity.lock for half an hour" >&2; exit 1; }
if ready; then
    exit 0
fi

free_kib=$(df -Pk .cache | awk 'NR==2 {print $4}')
if [ "$free_kib" -lt 12000000 ]; then
    echo "error: the parity environment needs 12 GB of free disk in $PWD/.cache, $((free_kib / 1000000)) GB are left" >&2
    exit 1
fi

echo "      installing torch and transformers for Python (5 GB, some minutes; details in $log)"
rm -rf "$home"
install() {
    python3 -m venv "$home" &&
        timeout --foreground 1700 "$home/bin/python" -m pip install --no-cache-dir --no-input --disable-pip-version-check \
            'torch==2.11.0' 'transformers==4.57.6' 'safetensors==0.7.0' 'numpy==2.3.5' &&
        "$home/bin/python" -c 'import torch, transformers; print(torch.__version__, transformers.__version__)'
}
if ! install >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: the parity environment could not be installed. Is the Python package index reachable (a proxy" >&2
    echo "       set in PIP_INDEX_URL or pip.conf is used)? The whole log is in $log; run the command again to retry." >&2
    exit 1
fi
echo "$recipe" >"$stamp"
