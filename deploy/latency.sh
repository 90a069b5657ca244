#!/usr/bin/env bash
# Measures how long it takes from wanting a worker to having its slot, and what a worker that is killed costs: the numbers
# of "Where workers come from" in deploy/README.md. One line for each of five tries, then the medians, in seconds.
# usage: deploy/latency.sh local | hand | kubernetes | CLUSTER.toml [TRIES]
#   local   from the start of `muster serve --slots 1` to the free slot; then kill -9 of the worker, to a free slot again
#   hand    from the start of `muster-worker supervise` to the free slot
#   kubernetes  from `muster submit` to the first step of training, with a local worker that waits and through the
#           tests' Kubernetes, stage by stage: a real API server and controller of Jobs, and pods that are local processes
#   a file  from `muster submit configs/demo.yaml` to the slot that works on it, on the cluster of this file
# MUSTER_PROGRAMS names the folder of the programs (default target/release).
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?usage: deploy/latency.sh local | hand | kubernetes | CLUSTER.toml [TRIES]}
tries=${2:-5}
if [ "$kind" = kubernetes ]; then
    # It uses the programs beside it.
    exec cargo run --release --locked --quiet --package muster-tests --example latency -- "$tries"
fi
programs=$(realpath "${MUSTER_PROGRAMS:-target/release}")
home=$(mktemp -d)
# What was started here, by process id.
started=()
stop() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    started=()
}
trap 'stop; rm -rf "$home"' EXIT

now() { echo "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
# Sum of the samples whose names begin so.
metric() {
    curl --silent --max-time 2 "$address/metrics" | awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'
}
# Waits, two minutes at most, until a metric is at least so much.
await() {
    local deadline=$((SECONDS + 120))
    until [ "$(metric "$1")" -ge "$2" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "error: no $1 of $2; look at the end: $(tail -n 3 "$home"/*.log)" >&2; exit 1; }
        sleep 0.02
    done
}
# Starts `muster serve` with these arguments, and waits until it listens.
serve() {
    rm -rf "$home/state" "$home/store"
    "$programs/muster" serve --listen 127.0.0.1:0 --state "$home/state" --store "$home/store" "$@" >"$home/serve.log" 2>&1 &
    started+=($!)
    until grep -q '^serving on' "$home/serve.log"; do
        kill -0 "${started[0]}" 2>/dev/null || { cat "$home/serve.log" >&2; exit 1; }
        sleep 0.01
    done
    address=$(sed -n 's/^serving on //p' "$home/serve.log")
}
free='muster_slots{state="free"}'

once() {
    local begun
    case $kind in
    local)
        begun=$(now)
        serve --slots 1
        await "$free" 1
        first=$(since "$begun")
        begun=$(now)
        kill -9 "$(pgrep --parent "${started[0]}" muster-worker)"
        await 'muster_workers_lost_total' 1
        await "$free" 1
        again=$(since "$begun")
        ;;
    hand)
        serve --no-workers
        begun=$(now)
        "$programs/muster-worker" supervise --coordinator "$address" >"$home/worker.log" 2>&1 &
        started+=($!)
        await "$free" 1
        first=$(since "$begun")
        ;;
    *)
        serve --cluster "$kind"
        begun=$(now)
        "$programs/muster" submit configs/demo.yaml --coordinator "$address" >"$home/submit.log" 2>&1
        await 'muster_slots{state="busy"}' 1
        first=$(since "$begun")
        ;;
    esac
    stop
}

for _ in $(seq "$tries"); do
    first='' again=''
    once
    echo "first slot $first${again:+, again after a kill $again}"
    echo "$first $again" >>"$home/tries"
done
median() { awk -v column="$1" '$column != "" { print $column }' "$home/tries" | sort -n | awk '{ x[NR] = $1 } END { if (NR) print x[int((NR + 1) / 2)] }'; }
again=$(median 2)
echo "medians: first slot $(median 1)${again:+, again after a kill $again}"
