#!/usr/bin/env bash
# `make parity`: does the transformers library give an exported model the scores that Muster gives it?
# usage: run.sh [MODEL_DIR]; without one, the model that `make demo` exported last.
set -euo pipefail
cd "$(dirname "$0")/../.."

model=${1:-}
if [ -z "$model" ]; then
    newest=$(find muster-data -path '*/best/config.json' -printf '%T@ %h\n' 2>/dev/null | sort -rn | head -n 1)
    model=${newest#* }
fi
if [ -z "$model" ]; then
    echo "error: there is no exported model in muster-data: run \`make demo\` first, or give its directory" >&2
    exit 1
fi
deploy/setup/check.sh
tests/parity/setup.sh
deploy/setup/libtorch.sh
deploy/setup/build.sh target/build.log
mkdir -p target/parity
echo "comparing $model"
target/release/muster predict "$model" --json --logits <tests/parity/sentences.txt >target/parity/predictions.jsonl
HF_HUB_OFFLINE=1 timeout 300 .cache/parity/bin/python tests/parity/check_export.py \
    "$model" tests/parity/sentences.txt target/parity/predictions.jsonl
