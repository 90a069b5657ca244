#!/usr/bin/env bash
# A Slurm of its own for a test program: one slurmctld, a munged, and a slurmd for each of several emulated
# nodes with fake GPUs, all on 127.0.0.1 and in one directory. Where slurmdbd and MariaDB are installed it keeps accounts
# too, which sacct reads. It lives until standard input ends.
#
#   slurm.sh DIRECTORY FIRST_PORT NODES GPUS      takes NODES + 2 ports
set -euo pipefail
directory=$1 port=$2 nodes=$3 gpus=$4
export SLURM_CONF=$directory/slurm.conf
database=$directory/database
database_pid=
has_accounts=true
for program in slurmdbd mariadbd mariadb mariadb-install-db; do
    command -v "$program" >/dev/null || has_accounts=false
done

stop() {
    local file pid
    for file in "$directory"/run/slurmctld.pid "$directory"/run/slurmd.*.pid "$directory"/munge/munged.pid \
        "$directory"/run/slurmdbd.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill -9 "$pid" 2>/dev/null || true
    done
    [ -z "$database_pid" ] || kill -9 "$database_pid" 2>/dev/null || true
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
    if $has_accounts; then
        echo "AccountingStorageType=accounting_storage/slurmdbd"
        echo "AccountingStorageHost=127.0.0.1"
        echo "AccountingStoragePort=$((port + nodes + 1))"
        echo "AccountingStoragePass=$directory/munge/munge.socket"
    else
        echo "AccountingStorageType=accounting_storage/none"
    fi
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
# A database that only this machine's root reaches, and the daemon that writes into it.
start_accounts() {
    mkdir -p "$database"
    mariadb-install-db --no-defaults --datadir="$database/data" --user=root --skip-test-db \
        --auth-root-authentication-method=normal >"$directory/log/install.log" 2>&1
    mariadbd --no-defaults --user=root --datadir="$database/data" --socket="$database/socket" \
        --pid-file="$database/pid" --skip-networking --innodb-buffer-pool-size=64M \
        --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 </dev/null >"$directory/log/mariadbd.log" 2>&1 &
    database_pid=$!
    disown # its end is no news
    wait_for mariadb --no-defaults --socket="$database/socket" --user=root \
        --execute="create database if not exists slurm_acct_db"
    (
        umask 077
        cat >"$directory/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$directory/munge/munge.socket
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((port + nodes + 1))
SlurmUser=root
LogFile=$directory/log/slurmdbd.log
PidFile=$directory/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
    )
    MYSQL_UNIX_PORT=$database/socket slurmdbd
    wait_for sacctmgr --noheader show cluster
    sacctmgr --immediate --quiet add cluster tests >/dev/null
}

wait_for() {
    for _ in $(seq 1 1200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "no answer: $*" >&2
    return 1
}

if $has_accounts; then
    start_accounts
fi
slurmctld -f "$SLURM_CONF"
for number in $(seq 1 "$nodes"); do
    mkdir -p "$directory/run/spool.n$number"
    slurmd -f "$SLURM_CONF" -N "n$number"
done
is_ready=false
for _ in $(seq 1 1200); do
    ready=$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | sort -u | wc -l)
    if [ "$ready" -eq "$nodes" ]; then
        is_ready=true
        break
    fi
    sleep 0.1
done
# Whoever waits for the word must not wait for ever.
$is_ready || exit 1
echo ready
read -r _ || true
