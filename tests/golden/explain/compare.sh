#!/usr/bin/env bash
# `make explained`: do explanations of real models say what Captum and transformers say about the same weights?
# MiniLM of the demo and, where it lies in MUSTER_SHARED, gte-small are fine-tuned for a minute on sentences of the
# demo; then ten sentences are explained by both sides. The table of relative differences is printed and put into
# configs/README.md. Ends with 1 if one is above 1e-3.
#
#   tests/golden/explain/compare.sh [MODEL_DIR]
#
# With a directory of a fine-tuned classifier that one is compared instead, and no document is changed. Needs the
# peers of `make bench` (6 GB once; or a Python with torch and transformers in MUSTER_PEERS_PYTHON).
# CONDUCTANCE=400 are the steps of the sums of conductance, ours and Captum's; 0 leaves it out. Only the first two texts
# are compared in that, and not on gte-small: Captum takes minutes with 400 steps, and there needs thousands.
set -euo pipefail
cd "$(dirname "$0")/../../.."
own=$PWD/tests/golden/explain
out=target/explained
document=configs/README.md

deploy/setup/check.sh
deploy/setup/libtorch.sh
deploy/setup/build.sh target/build.log
python=${MUSTER_PEERS_PYTHON:-}
if [ -z "$python" ]; then
    tests/bench/peers.sh
    python=.cache/peers/bin/python
fi

# Captum says that it needs matplotlib and torch; the latter is there, and must stay what it is.
captum=.cache/captum
recipe="captum 0.9.0, layout 1"
if [ "$(cat "$captum/.ready" 2>/dev/null)" != "$recipe" ]; then
    echo "      installing Captum (100 MB; details in .cache/captum.log)"
    rm -rf "$captum"
    if ! timeout --foreground 900 "$python" -m pip install --no-cache-dir --no-input --disable-pip-version-check \
        --target "$captum" --no-deps captum==0.9.0 matplotlib cycler kiwisolver contourpy pillow pyparsing \
        python-dateutil six fonttools >.cache/captum.log 2>&1; then
        tail -n 5 .cache/captum.log >&2
        echo "error: Captum could not be installed; the whole log is in .cache/captum.log" >&2
        exit 1
    fi
    echo "$recipe" >"$captum/.ready"
fi
rm -rf "$out"
mkdir -p "$out"

manifest() { # NAME PRETRAINED
    cat >"$out/$1.yaml" <<YAML
version: 1
name: explained-$1
seed: 7
model: {pretrained: $2, max_length: 48}
data:
  train: {path: $PWD/.cache/demo/movie-reviews/sentences.tsv, columns: [id, rating, text]}
  validation: {examples: 200}
  text: text
  label:
    column: rating
    ranges: [{name: negative, below: -0.5}, {name: positive, above: 0.5}]
hyperparameters: {learning_rate: 1e-4, global_batch_size: 16}
budget: {steps: 80}
YAML
}

texts=()
while IFS= read -r line; do
    if [ -n "$line" ]; then texts+=(--text "$line"); fi
done <tests/parity/sentences.txt

conductance=${CONDUCTANCE:-400}
compared=()
explain() { # NAME MODEL_DIR
    echo "explaining $1: $2"
    timeout 900 target/release/muster explain "$2" "${texts[@]}" --json "$out/$1.json" >"$out/$1.txt"
    if [ "$conductance" -gt 0 ] && [ "$1" != gte-small ]; then
        timeout 900 target/release/muster explain "$2" "${texts[@]:0:4}" --steps "$conductance" \
            --json "$out/$1-fine.json" >"$out/$1-fine.txt"
        compared+=("$1=$2=$out/$1.json=$out/$1-fine.json")
    else
        compared+=("$1=$2=$out/$1.json")
    fi
}

if [ "$#" -gt 0 ]; then
    explain "$(basename "$(realpath "$1")")" "$1"
else
    deploy/setup/demo_inputs.sh
    pretrained=(".cache/demo/minilm")
    shared=${MUSTER_SHARED:-../shared}/weights/gte-small
    if [ -d "$shared" ]; then pretrained+=("$shared"); fi
    for model in "${pretrained[@]}"; do
        name=$(basename "$model")
        manifest "$name" "$(realpath "$model")"
        echo "fine-tuning $name"
        timeout 1800 target/release/muster run "$out/$name.yaml" --slots 1 --state "$out/coordinator" \
            --store "$out/store" >"$out/$name.log" 2>&1 || {
            tail -n 20 "$out/$name.log" >&2
            exit 1
        }
        explain "$name" "$out/store/experiments/explained-$name-1/best"
    done
fi

PYTHONPATH=$PWD/$captum:$own HF_HUB_OFFLINE=1 timeout 7200 "$python" "$own/compare.py" \
    --conductance "$conductance" --table "$out/table.md" "${compared[@]}"
if [ "$#" -eq 0 ]; then
    sed -i -e '/^<!-- explained -->$/,/^<!-- end of explained -->$/{/^<!-- /!d}' \
        -e "/^<!-- explained -->\$/r $out/table.md" "$document"
    echo "The table of $document is written anew."
fi
