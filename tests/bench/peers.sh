#!/usr/bin/env bash
# Builds Python environments with the tools that `make bench` compares Muster with: .cache/peers, six gigabytes and
# several minutes, hence only on demand, and .cache/peers-dashboard, small, by itself because it wants other versions.
set -euo pipefail
cd "$(dirname "$0")/../.."

install() { # NAME KILOBYTES WORDS PACKAGE...
    local home=.cache/$1 log=.cache/$1.log need_kib=$2 words=$3
    shift 3
    local recipe="$*, layout 1" stamp=$home/.ready free_kib
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
        return 0
    fi
    free_kib=$(df -Pk .cache | awk 'NR==2 {print $4}')
    if [ "$free_kib" -lt "$need_kib" ]; then
        echo "error: the peers need $((need_kib / 1000)) MB of free disk in $PWD/.cache, $((free_kib / 1000)) MB are left" >&2
        exit 1
    fi
    echo "      installing $words; details in $log"
    rm -rf "$home"
    if ! { python3 -m venv "$home" &&
        timeout --foreground 1700 "$home/bin/python" -m pip install --no-cache-dir --no-input --disable-pip-version-check \
            "$@"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        echo "error: $words could not be installed; the whole log is in $log; run the command again to retry" >&2
        exit 1
    fi
    echo "$recipe" >"$stamp"
}

mkdir -p .cache
exec 9>.cache/peers.lock
flock -w 1800 9 || { echo "error: another set-up holds .cache/peers.lock for half an hour" >&2; exit 1; }
install peers-dashboard 500000 "Optuna's dashboard (300 MB)" optuna-dashboard==0.21.0 optuna==5.0.0
install peers 12000000 "the peers (6 GB, some minutes)" torch==2.11.0 transformers==5.23.0 accelerate datasets \
    scikit-learn pyarrow optuna==5.0.0 'ray[tune]==2.60.0'
