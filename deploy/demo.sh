#!/usr/bin/env bash
# `make demo`: from a fresh clone to a finished sweep. Set-up and build are done once and found again later.
set -euo pipefail
cd "$(dirname "$0")/.."

summary=target/demo/summary.json
mkdir -p target/demo

names=()
seconds=()
# Runs one phase, shows its place among all, and notes how long it took.
phase() {
    local name=$1 start=${EPOCHREALTIME/,/.} status=0
    shift
    names+=("$name")
    printf '[%d/5] %s\n' "${#names[@]}" "$name"
    "$@" || status=$?
    seconds+=("$(awk -v a="$start" -v b="${EPOCHREALTIME/,/.}" 'BEGIN {printf "%.1f", b - a}')")
    if [ "$status" -ne 0 ]; then
        printf '[%d/5] %s failed (exit code %d)\n' "${#names[@]}" "$name" "$status" >&2
        exit "$status"
    fi
}

phase "looking for the tools" deploy/setup/check.sh
phase "libtorch" deploy/setup/libtorch.sh
phase "building muster and muster-worker" deploy/setup/build.sh target/demo/build.log
phase "the demo's model and sentences" deploy/setup/demo_inputs.sh
phase "the sweep (configs/demo.yaml)" target/release/muster run configs/demo.yaml --summary "$summary"

echo
for index in "${!names[@]}"; do
    printf '%8s s  %s\n' "${seconds[$index]}" "${names[$index]}"
done
echo "The summary is in $summary, the store and the journal in muster-data/."
