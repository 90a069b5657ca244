#!/usr/bin/env bash
# A Slurm of its own for a test program: one slurmctld, a munged, and a slurmd for each of several emulated
# nodes with fake GPUs, all on 127.0.0.1 and in one directory. It lives until standard input ends.
#
#   slurm.sh DIRECTORY FIRST_PORT NODES GPUS
set -euo pipefail
directory=$1 port=$2 nodes=$3 gpus=$4
export SLURM_CONF=$directory/slurm.conf

stop() {
    local file pid
    for file in "$directory"/run/slurmctld.pid "$directory"/run/slurmd.*.pid "$directory"/munge/munged.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill -9 "$pid" 2>/dev/null || true
    done
    # What jobs have left behind names this directory in its environment or has its logs open.
    for file in /proc/[0-9]*; do
        pid=${file#/proc/}
        case $({ tr '\0' ' ' <"$file/cmdline"; } 2>/dev/null) in
        "slurmstepd: "*)
            find "$file/fd" -lname "$directory/*" 2>/dev/null | grep -q . && kill -9 "$pid" 2>/dev/null || true
            ;;
        *slurm_script* | *srun* | *muster-worker* | *sleep*)
            grep -zqxF "SLURM_CONF=$SLURM_CONF" "$file/environ" 2>/dev/null && kill -9 "$pid" 2>/dev/null || true
            ;;
        esac
    done
    rm -rf "$directory"
}
trap stop EXIT

mkdir -p "$directory"/state "$directory"/log "$directory"/run
mkdir -p -m 711 "$directory"/munge
chmod 755 "$directory"
(umask 077 && head -c 1024 /dev/urandom >"$directory/munge/munge.key")
host=$(hostname -s)
{
    cat <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$directory/munge/munge.socket,cred_expire=5
StateSaveLocation=$directory/state
SlurmctldPidFile=$directory/run/slurmctld.pid
SlurmdPidFile=$directory/run/slurmd.%n.pid
SlurmdSpoolDir=$directory/run/spool.%n
SlurmctldLogFile=$directory/log/slurmctld.log
SlurmdLogFile=$directory/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,sched_interval=1,bf_interval=1,defer_batch=0
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
GresTypes=gpu
KillWait=5
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=10
BatchStartTimeout=10
MailProg=/bin/true
SlurmctldDebug=info
SlurmdDebug=info
CONF
    for number in $(seq 1 "$nodes"); do
        echo "NodeName=n$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + number)) CPUs=8 Gres=gpu:$gpus State=UNKNOWN"
    done
    echo "PartitionName=gpu Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO"
} >"$directory/slurm.conf"
# GPUs that are only counted would register as none.
for number in $(seq 0 $((gpus - 1))); do
    mknod "$directory/run/nvidia$number" c 1 3
done
echo "Name=gpu File=$directory/run/nvidia[0-$((gpus - 1))]" >"$directory/gres.conf"
echo "CgroupAutomount=no" >"$directory/cgroup.conf"

munged --force --key-file="$directory/munge/munge.key" --socket="$directory/munge/munge.socket" \
    --pid-file="$directory/munge/munged.pid" --seed-file="$directory/munge/munged.seed" \
    --log-file="$directory/munge/munged.log" --num-threads=2
slurmctld -f "$SLURM_CONF"
for number in $(seq 1 "$nodes"); do
    mkdir -p "$directory/run/spool.n$number"
    slurmd -f "$SLURM_CONF" -N "n$number"
done
for _ in $(seq 1 300); do
    ready=$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | sort -u | wc -l)
    if [ "$ready" -eq "$nodes" ]; then
        echo ready
        break
    fi
    sleep 0.1
done
read -r _ || true
