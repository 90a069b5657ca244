#!/usr/bin/env bash
# Trains a small real sweep, about a minute on two cores, and keeps what people see of it: the dashboard's answers in
# recorded.json, and the screen of `muster watch` as coordinator/assets/watch.svg. Then `MUSTER_BLESS=1 cargo test
# --release -p muster-tests --test dashboard pages_look_as_approved` makes the dashboard's pictures anew.
#
#   tests/dashboard/record.sh DIRECTORY [MUSTER]
#
# DIRECTORY keeps the coordinator's state: a second call with it trains nothing and only records the pages again.
# Needs the inputs of the demo, Chromium with what drives it (`make test` gets them), and tmux.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
work=$(realpath -m "${1:?a directory for the state}")
muster=$(realpath "${2:-target/release/muster}")
mkdir -p "$work"
session=muster-record-$$

manifest() { # NAME DESCRIPTION SEED TRIALS STEPS PRUNER PRIORITY
    cat >"$work/$1.yaml" <<YAML
version: 1
name: $1
description: $2
seed: $3
project: films
model:
  pretrained: $root/.cache/demo/minilm
  max_length: 48
  freeze: {embeddings: true, layers: 5}
data:
  train: {path: sentences.tsv, columns: [id, rating, text]}
  test: {examples: 400}
  validation: {examples: 400}
  text: text
  label:
    column: rating
    ranges:
      - {name: negative, below: -1}
      - {name: mixed, above: -1, below: 1}
      - {name: positive, above: 1}
hyperparameters:
  learning_rate: {min: 2e-5, max: 1e-2, scale: log}
  global_batch_size: {values: [8, 16, 32]}
  dropout: {min: 0.0, max: 0.5}
  weight_decay: {min: 1e-4, max: 0.3, scale: log}
searcher:
  metric: accuracy
  max_trials: $4
  sampler: tpe
  pruner: $6
budget: {steps: $5}
training: {evaluate_every: {steps: 12}}
checkpoint: {keep_last: 1}
resources: {priority: $7}
YAML
}

stop() {
    tmux kill-session -t "$session" 2>/dev/null || true
    [ -z "${server:-}" ] || kill -INT "$server" 2>/dev/null || true
    [ -z "${server:-}" ] || wait "$server" || true
}
trap stop EXIT
serve() { # ARGUMENT...
    : >"$work/serve.out"
    (cd "$work" && exec "$muster" serve --listen 127.0.0.1:0 "$@") >"$work/serve.out" 2>"$work/serve.err" </dev/null &
    server=$!
    for _ in $(seq 300); do
        url=$(sed -n 's/^serving on //p' "$work/serve.out")
        [ -z "$url" ] || return 0
        sleep 0.2
    done
    echo "error: no coordinator: $(tail -n 3 "$work/serve.err")" >&2
    exit 1
}
ask() { (cd "$work" && "$muster" "$@" --coordinator "$url"); }

if [ -f "$work/.trained" ]; then
    serve --no-workers
else
    halving="{type: asha, reduction_factor: 2, min_budget: {steps: 12}}"
    manifest first "the first try, everything by hand" 2 2 32 "{type: none}" 2
    manifest reviews "which settings rate sentences of film reviews best?" 7 24 192 "$halving" 1
    manifest longer "the same with three times as many settings" 7 72 192 "$halving" 0
    manifest night "when nobody else wants the slots" 11 24 192 "$halving" -1
    awk "NR % 4 == 0" .cache/demo/movie-reviews/sentences.tsv >"$work/sentences.tsv"
    serve --slots 2 --threads-per-slot 1
    for name in first reviews longer night; do
        ask submit $name.yaml
    done
    tmux new-session -d -s "$session" -x 132 -y 36 \
        "env -u NO_COLOR TERM=xterm-256color '$muster' watch reviews-1 --coordinator $url"
    number=0
    ask watch reviews-1 --plain >"$work/watched" &
    watcher=$!
    while kill -0 $watcher 2>/dev/null && [ $number -lt 900 ]; do
        sleep 2
        number=$((number + 1))
        tmux capture-pane -p -e -t "$session" >"$work/screen-$(printf %03d $number)" || true
    done
    chosen=$(grep -l "2 running" "$work"/screen-* | awk '{all[NR] = $0} END {print all[int((2 * NR + 2) / 3)]}')
    python3 tests/terminal_picture.py <"$chosen" >coordinator/assets/watch.svg
    sleep 10 # the next one has begun: the cluster has something to show
fi
MUSTER_MODULES=$root/.cache/browser/node_modules MUSTER_REPOSITORY=$root MUSTER_URL=$url MUSTER_FINISHED=reviews-1 \
    node tests/dashboard/record.mjs
touch "$work/.trained"
