#!/usr/bin/env bash
# Measures how long it takes from wanting a worker to having its slot, and what a worker that is killed costs: the numbers
# of "Where workers come from" in deploy/README.md. One line for each of five tries, then the medians, in seconds.
# usage: deploy/latency.sh local | hand | kubernetes | CLUSTER.toml [TRIES]
#   local   from the start of `muster serve --slots 1` to the free slot; then kill -9 of the worker, to a free slot again
#   hand    from the start of `muster-worker supervise` to the free slot; then kill -9 of the worker and at once the start
#           of another one, as a container's or a unit's restart does it, to a free slot again
#   kubernetes  from `muster submit` to the first step of training, with a local worker that waits and through the
#           tests' Kubernetes, stage by stage: a real API server and controller of Jobs, and pods that are local processes;
#           then kill -9 of the worker, to a slot at work again
#   a file  from `muster submit configs/demo.yaml` to the slot that works on it, on the cluster of this file; then kill -9 of
#           the worker, to a slot at work again, if the worker is a process of this machine. The file should have
#           max_allocations = 1 and one worker in it, so that no other worker is taken for the one that comes back.
# MUSTER_PROGRAMS names the folder of the programs. Without it they are those of target/release, which `kubernetes` builds
# before. What is asked of a cluster is given back after each try: by scancel, or by kubectl.
set -euo pipefail

kind=${1:?usage: deploy/latency.sh local | hand | kubernetes | CLUSTER.toml [TRIES]}
tries=${2:-5}
case $kind in
local | hand | kubernetes) ;;
*)
    [ -f "$kind" ] || { echo "error: $kind is no file; write local, hand, kubernetes or a file that describes a cluster" >&2; exit 2; }
    kind=$(realpath "$kind")
    ;;
esac
programs=${MUSTER_PROGRAMS:+$(realpath "$MUSTER_PROGRAMS")}
cd "$(dirname "$0")/.."
if [ "$kind" = kubernetes ]; then
    # Started as it is built with everything else: cargo run would build it anew, with other features of the dependencies.
    example=target/release/examples/latency
    [ -z "$programs" ] || export MUSTER_PROGRAMS=$programs
    [ -n "$programs" ] && [ -x "$example" ] || deploy/setup/build.sh target/build.log --workspace --all-targets
    exec "$example" "$tries"
fi
programs=${programs:-$PWD/target/release}
home=$(mktemp -d)
# What was started here, by process id.
started=()
stop() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    started=()
}
# The identity of the coordinator, which the names of its allocations have in them; nothing before it has one.
identity() { sed -n 's/.*"identity": *"\([0-9a-f]*\)".*/\1/p' "$home/state/allocations.json" 2>/dev/null || true; }
# A text of the cluster's file.
setting() { sed -n "s/^$1 *= *\"\([^\"]*\)\".*/\1/p" "$kind" | head -n 1; }
slurm_jobs() { squeue --noheader --user="$(id -u)" --format='%i|%j' | awk -F '|' -v stem="muster-$1-" 'index($2, stem) == 1 { print $1 }'; }
# `muster serve` leaves its allocations for its next start, which never comes here.
give_back() {
    local own jobs namespace context
    own=$(identity)
    [ -n "$own" ] && [ -f "$kind" ] || return 0
    if [ "$(setting kind)" = kubernetes ]; then
        namespace=$(setting namespace) context=$(setting context)
        kubectl ${context:+--context="$context"} ${namespace:+--namespace="$namespace"} delete jobs \
            --selector "muster-train.github.io/identity=$own" --timeout=120s >/dev/null ||
            echo "error: Jobs with the label muster-train.github.io/identity=$own may be left: delete them" >&2
        return 0
    fi
    for _ in $(seq 120); do
        jobs=$(slurm_jobs "$own") || break
        [ -n "$jobs" ] || return 0
        # One word for each job.
        # shellcheck disable=SC2086
        scancel $jobs || true
        sleep 1
    done
    echo "error: jobs with names that begin with muster-$own- may be left: end them with scancel" >&2
}
trap 'stop; give_back; rm -rf "$home"' EXIT

now() { echo "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
# Sum of the samples whose names begin so.
metric() {
    { curl --silent --max-time 2 "$address/metrics" || true; } |
        awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'
}
# Waits, five minutes at most, until a metric is at least so much.
await() {
    local deadline=$((SECONDS + 300))
    until [ "$(metric "$1")" -ge "$2" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "error: no $1 of $2; look at the end: $(tail -n 3 "$home"/*.log)" >&2; exit 1; }
        sleep 0.02
    done
}
# Starts `muster serve` with these arguments, and waits until it listens.
serve() {
    rm -rf "$home/state" "$home/store" "$home/serve.log"
    "$programs/muster" serve --listen 127.0.0.1:0 --state "$home/state" --store "$home/store" "$@" >"$home/serve.log" 2>&1 &
    started+=($!)
    until grep -qs '^serving on' "$home/serve.log"; do
        kill -0 "${started[0]}" 2>/dev/null || { cat "$home/serve.log" >&2; exit 1; }
        sleep 0.01
    done
    address=$(sed -n 's/^serving on //p' "$home/serve.log")
}
# Starts a worker by hand.
hand() {
    "$programs/muster-worker" supervise --coordinator "$address" >"$home/worker.log" 2>&1 &
    started+=($!)
}
# A worker on this machine that an allocation of this coordinator has started, if there is one.
worker_of_allocation() {
    local own folder
    own=$(identity)
    for folder in /proc/[0-9]*; do
        [ "$(cat "$folder/comm" 2>/dev/null)" = muster-worker ] || continue
        grep -zqs "^MUSTER_ALLOCATION=muster-$own-" "$folder/environ" || continue
        if tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep -q ' supervise'; then
            echo "${folder#/proc/}"
            return
        fi
    done
}
free='muster_slots{state="free"}'
busy='muster_slots{state="busy"}'

once() {
    local begun worker
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
        hand
        await "$free" 1
        first=$(since "$begun")
        begun=$(now)
        kill -9 "${started[1]}"
        wait "${started[1]}" 2>/dev/null || true
        hand
        # The slot of the one that was killed counts until its lease is over.
        await "$free" 2
        again=$(since "$begun")
        ;;
    *)
        serve --cluster "$kind"
        begun=$(now)
        "$programs/muster" submit configs/demo.yaml --coordinator "$address" >"$home/submit.log" 2>&1
        await "$busy" 1
        first=$(since "$begun")
        worker=$(worker_of_allocation)
        if [ -n "$worker" ]; then
            begun=$(now)
            kill -9 "$worker"
            await 'muster_workers_lost_total' 1
            await "$busy" 1
            again=$(since "$begun")
        else
            echo "its worker is on another machine, and is not killed"
        fi
        ;;
    esac
    stop
    give_back
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
