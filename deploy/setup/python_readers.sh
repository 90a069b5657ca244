#!/usr/bin/env bash
# Builds .cache/python, a Python environment with other people's readers (pyarrow, duckdb, pandas, polars, TensorBoard,
# MLflow, ONNX Runtime) and scikit-learn, once.
# Tests read Muster's files with them, so that "plain Parquet" is checked by programs that are not Muster.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(pyarrow==21.0.0 duckdb==1.4.3 numpy==2.3.5 scikit-learn==1.7.2 pandas==2.3.3 polars==2.1.0
    tensorboard==2.21.0 mlflow-skinny==3.17.2 onnxruntime==1.32.0)
recipe="${packages[*]}, layout 1"
home=.cache/python
stamp=$home/.ready
log=.cache/python.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>.cache/python.lock
flock -w 900 9 || { echo "error: another set-up holds .cache/python.lock for a quarter of an hour" >&2; exit 1; }
if ready; then
    exit 0
fi

free_kib=$(df -Pk .cache | awk 'NR==2 {print $4}')
if [ "$free_kib" -lt 2500000 ]; then
    echo "error: the Python readers need 2.5 GB of free disk in $PWD/.cache, $((free_kib / 1000)) MB are left" >&2
    exit 1
fi

echo "      installing Python readers for the tests (1 GB, half a minute; details in $log)"
rm -rf "$home"
install() {
    python3 -m venv "$home" &&
        timeout --foreground 600 "$home/bin/python" -m pip install --no-cache-dir --no-input --disable-pip-version-check \
            --only-binary :all: "${packages[@]}" &&
        "$home/bin/python" -c 'import duckdb, mlflow, numpy, onnxruntime, pandas, polars, pyarrow.parquet, sklearn, tensorboard'
}
if ! install >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: the Python readers could not be installed. Is the Python package index reachable (a proxy set in" >&2
    echo "       PIP_INDEX_URL or pip.conf is used)? The whole log is in $log; run the command again to retry." >&2
    exit 1
fi
echo "$recipe" >"$stamp"
