#!/usr/bin/env bash
# `make parity`: does the transformers library give exported models the scores that Muster gives them?
# usage: run.sh [MODEL_DIR]; without one, a small model of each family is fine-tuned and exported, and the model
# that `make demo` exported last is compared too, where there is one.
# MUSTER_PARITY_PYTHON names a Python that has torch and transformers already.
set -euo pipefail
cd "$(dirname "$0")/../.."

deploy/setup/check.sh
python=${MUSTER_PARITY_PYTHON:-}
if [ -z "$python" ]; then
    tests/parity/setup.sh
    python=.cache/parity/bin/python
fi
deploy/setup/libtorch.sh
deploy/setup/build.sh target/build.log
sentences=tests/parity/sentences.txt

compare() {
    echo "comparing $1"
    target/release/muster predict "$1" --json <"$sentences" >target/parity/predictions.jsonl
    HF_HUB_OFFLINE=1 timeout 300 "$python" tests/parity/check_export.py "$1" "$sentences" target/parity/predictions.jsonl
}

if [ "$#" -gt 0 ]; then
    mkdir -p target/parity
    compare "$1"
    exit 0
fi
rm -rf target/parity
HF_HUB_OFFLINE=1 timeout 300 "$python" tests/parity/families.py "$sentences" target/parity

train() {
    timeout 600 target/release/muster run "target/parity/$1.yaml" --slots 1 \
        --state target/parity/coordinator --store target/parity/store >"target/parity/$1.log" 2>&1 || {
        tail -n 20 "target/parity/$1.log" >&2
        exit 1
    }
}

for family in bert distilbert roberta; do
    echo "fine-tuning a small $family"
    train "$family"
    compare "target/parity/store/experiments/parity-$family-1/best"
done
for adapted in bert-masked_lm bert-next_sentence bert-pretraining distilbert-masked_lm roberta-masked_lm; do
    echo "teaching a small ${adapted%-*}: ${adapted#*-}"
    train "$adapted"
    HF_HUB_OFFLINE=1 timeout 300 "$python" tests/parity/check_language.py \
        "target/parity/store/experiments/parity-${adapted//_/-}-1/best" "target/parity/${adapted%-*}" "$sentences"
done
newest=$(find muster-data -path '*/best/config.json' -printf '%T@ %h\n' 2>/dev/null | sort -rn | head -n 1)
if [ -n "$newest" ]; then
    compare "${newest#* }"
fi
