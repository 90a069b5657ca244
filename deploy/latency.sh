#!/usr/bin/env bash
# Measures how long it takes from wanting a worker to having its slot and to the first step of training, and what a worker
# that is killed in the middle of it costs: the numbers of "Where workers come from" in deploy/README.md. One trial of a
# small model trains, with the real programs, five times; then the median of each stage, the least and the most, in seconds.
# usage: deploy/latency.sh local | hand | slurm | kubernetes | CLUSTER.toml [TRIES]
#   local   workers that `muster serve --slots 1` starts
#   hand    workers that `muster-worker supervise` is; as soon as one is killed another is started, as a container's or a
#           unit's restart does it
#   slurm   through the tests' Slurm, which is started here and ended (tests/support/slurm.sh): two emulated nodes on this
#           machine. Needs root, and what deploy/setup/slurm.sh installs
#   kubernetes  through the tests' Kubernetes, stage by stage, and with a local worker that waits: a real API server and
#           controller of Jobs, and pods that are local processes
#   a file  through the cluster of this file. It should have max_allocations = 1 and one worker in an allocation, so that
#           no other worker is taken for the one that comes back; a worker that is no process of this machine is not
#           killed. Nodes of their own must see this checkout and the folder TMPDIR, and reach the coordinator: set
#           MUSTER_LISTEN=ADDRESS:PORT, and MUSTER_INSECURE=true, as nobody is asked for a token meanwhile
# MUSTER_PROGRAMS names the folder of the programs. Without it they are those of target/release, which `kubernetes` builds
# before. What is asked of a cluster is given back after each try: by scancel, or by kubectl.
set -euo pipefail

usage='usage: deploy/latency.sh local | hand | slurm | kubernetes | CLUSTER.toml [TRIES]'
kind=${1:?$usage}
tries=${2:-5}
# The file that describes the cluster, where there is one.
cluster=
case $kind in
local | hand | slurm | kubernetes) ;;
*)
    [ -f "$kind" ] || { echo "error: $kind is no file; write local, hand, slurm, kubernetes or a file that describes a cluster" >&2; exit 2; }
    cluster=$(realpath "$kind")
    ;;
esac
[[ $tries =~ ^[1-9][0-9]*$ ]] || { echo "error: \`$tries\` is no number of tries; $usage" >&2; exit 2; }
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
for program in muster muster-worker; do
    [ -x "$programs/$program" ] || { echo "error: $programs/$program is not there; build it: deploy/setup/build.sh target/build.log" >&2; exit 2; }
done
home=$(mktemp -d)
# Process id of what keeps the tests' Slurm, and the file descriptor that keeps it alive; empty: it is not wanted.
slurm='' alive=''
# What was started here, by process id.
started=()
# Ends it, workers before their coordinator, which hears what they save; a minute for each, at most.
stop() {
    local index pid
    for ((index = ${#started[@]} - 1; index >= 0; index--)); do
        pid=${started[index]}
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 600); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=()
}
# The identity of the coordinator, which the names of its allocations have in them; nothing before it has one.
identity() { sed -n 's/.*"identity": *"\([0-9a-f]*\)".*/\1/p' "$home/state/allocations.json" 2>/dev/null || true; }
# A text of the cluster's file.
setting() { sed -n "s/^$1 *= *\"\([^\"]*\)\".*/\1/p" "$cluster" | head -n 1; }
slurm_jobs() { squeue --noheader --user="$(id -u)" --format='%i|%j' | awk -F '|' -v stem="muster-$1-" 'index($2, stem) == 1 { print $1 }'; }
# `muster serve` leaves its allocations for its next start, which never comes here.
give_back() {
    local own jobs namespace context
    own=$(identity)
    [ -n "$own" ] && [ -n "$cluster" ] || return 0
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
# The tests' Slurm ends with its standard input.
end_slurm() {
    [ -n "$slurm" ] || return 0
    exec {alive}>&-
    wait "$slurm" || true
    slurm=
}
trap 'stop; give_back; end_slurm; rm -rf "$home"' EXIT

now() { echo "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
# Sum of the samples whose names begin so.
metric() {
    { curl --silent --max-time 2 "$address/metrics" || true; } |
        awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'
}
# Waits, five minutes at most, until a command succeeds.
await() {
    local deadline=$((SECONDS + 300))
    until "$@"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "error: waited in vain for: $*; the logs end so:" >&2
            tail -n 3 "$home"/*.log >&2 || true
            exit 1
        fi
        sleep 0.02
    done
}
# Whether a metric is at least so much.
reached() { [ "$(metric "$1")" -ge "$2" ]; }
# Whether the trial has a whole checkpoint; what it has measured before that is in the store then.
has_checkpoint() { compgen -G "$home/store/experiments/latency-1/trials/1/checkpoints/*/index.json" >/dev/null; }
# Starts `muster serve` with these arguments, and waits until it listens.
serve() {
    rm -rf "$home/state" "$home/store" "$home/serve.log"
    "$programs/muster" serve --listen "${MUSTER_LISTEN:-127.0.0.1:0}" --state "$home/state" --store "$home/store" "$@" >"$home/serve.log" 2>&1 &
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

# One trial that does not end by itself: a small model, and sentences of words that it knows, no two of them alike.
write_manifest() {
    awk 'BEGIN {
        split("good bad film a and it is no nobody the of was seen by", words, " ")
        split("low mid top", labels, " ")
        print "text,label"
        for (row = 0; row < 60; row++) {
            line = words[row % 14 + 1] " " words[int(row / 14) + 1]
            for (place = 2; place < 3 + row % 9; place++) line = line " " words[(row * place + place) % 14 + 1]
            print line "," labels[row % 3 + 1]
        }
    }' >"$home/data.csv"
    cat >"$home/latency.yaml" <<YAML
version: 1
name: latency
seed: 9
data:
  train: {path: $home/data.csv}
  validation: {examples: 10}
  text: text
  label: {column: label}
model:
  pretrained: $PWD/tests/golden/hf/families/bert-classification
  max_length: 16
hyperparameters: {learning_rate: 1e-3, global_batch_size: 9}
budget: {steps: 1000000}
checkpoint: {every_steps: 50}
YAML
}

slurm_is_ready() {
    kill -0 "$slurm" 2>/dev/null || { cat "$home/slurm.log" >&2; exit 1; }
    grep -qx ready "$home/slurm.log"
}
# Starts the tests' Slurm and describes it in a file.
start_slurm() {
    local port=$((21600 + $$ % 250 * 4)) program
    for program in slurmctld slurmd munged sbatch; do
        if [ "$(id -u)" -ne 0 ] || ! command -v "$program" >/dev/null; then
            echo "error: the tests' Slurm needs root and $program: run deploy/setup/slurm.sh as root" >&2
            exit 2
        fi
    done
    # Its socket lies in there.
    chmod 711 "$home"
    mkfifo "$home/alive"
    tests/support/slurm.sh "$home/slurm" "$port" 2 2 <"$home/alive" >"$home/slurm.log" 2>&1 &
    slurm=$!
    exec {alive}>"$home/alive"
    await slurm_is_ready
    export SLURM_CONF=$home/slurm/slurm.conf
    cluster=$home/cluster.toml
    cat >"$cluster" <<TOML
kind = "slurm"
device = "cpu"
cpus_per_worker = 1
max_allocations = 1
poll_seconds = 1
TOML
}

# Notes how long a stage took.
note() {
    printf '%s %s\n' "$2" "$1" >>"$home/tries"
    line="${line:+$line, }$1 $2"
}
# Submits the trial: when a slot works on it, and when its first step is done, by the clock of whoever trains.
submit() {
    local begun first
    begun=$(now)
    "$programs/muster" submit "$home/latency.yaml" --coordinator "$address" >"$home/submit.log" 2>&1
    await reached "$busy" 1
    note 'submit to slot at work' "$(since "$begun")"
    await has_checkpoint
    rm -rf "$home/mlruns"
    "$programs/muster" export latency-1 --mlflow "$home/mlruns" --coordinator "$address" >"$home/export.log" 2>&1
    # A line for each step: milliseconds since 1970, loss, step.
    first=$(cat "$home"/mlruns/*/*/metrics/train_loss |
        awk -v begun="$begun" 'NR == 1 || $1 < first { first = $1 } END { printf "%.2f", first / 1000 - begun }')
    note 'submit to first step' "$first"
}
# Kills a worker in the middle of the trial, and waits until a slot works on it again.
kill_worker() {
    local begun
    begun=$(now)
    kill -9 "$1"
    if [ "$kind" = hand ]; then
        wait "$1" 2>/dev/null || true
        hand
    fi
    # Until then the slot of the one that was killed counts as one at work.
    await reached muster_workers_lost_total 1
    await reached "$busy" 1
    note 'killed to slot at work' "$(since "$begun")"
}

once() {
    local begun worker
    begun=$(now)
    case $kind in
    local)
        serve --slots 1
        await reached "$free" 1
        note 'start of the coordinator to slot' "$(since "$begun")"
        submit
        worker=$(pgrep --parent "${started[0]}" muster-worker)
        ;;
    hand)
        serve --no-workers
        begun=$(now)
        hand
        await reached "$free" 1
        note 'start of the worker to slot' "$(since "$begun")"
        submit
        worker=${started[1]}
        ;;
    *)
        serve --cluster "$cluster"
        submit
        worker=$(worker_of_allocation)
        ;;
    esac
    if [ -n "$worker" ]; then
        kill_worker "$worker"
    else
        echo "its worker is on another machine, and is not killed"
    fi
    stop
    give_back
}

write_manifest
[ "$kind" != slurm ] || start_slurm
for _ in $(seq "$tries"); do
    line=
    once
    echo "$line"
done
echo "medians of $tries (least to most), seconds:"
sort -n "$home/tries" | awk '
    { time = $1; sub(/^[^ ]+ /, ""); if (!($0 in count)) names[++num] = $0; times[$0, ++count[$0]] = time }
    END {
        for (n = 1; n <= num; n++) {
            name = names[n]
            many = count[name]
            printf "  %-34s %6.2f (%.2f to %.2f)\n", name, times[name, int((many + 1) / 2)], times[name, 1], times[name, many]
        }
    }'
