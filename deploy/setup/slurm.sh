#!/usr/bin/env bash
# Installs Slurm and munge for the tests, and what Slurm keeps accounts with: Debian's packages, with its own tools, so it
# needs root (110 MB, a minute). Nothing of it is started here; the tests start daemons of their own and end them.
#
# Where it cannot be had, the tests that need it say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs="slurmctld slurmd sbatch srun squeue scancel sacct munged slurmdbd mariadbd mariadb mariadb-install-db"
log=.cache/slurm.log

missing() {
    local program
    for program in $programs; do
        command -v "$program" >/dev/null || return 0
    done
    return 1
}
if ! missing; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "      Slurm or its accounts are not installed, which needs root and apt-get; tests that need them are skipped" >&2
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would wait for the same locks of the package manager.
exec 9>.cache/slurm.lock
flock -w 900 9 || { echo "error: another set-up holds .cache/slurm.lock for a quarter of an hour" >&2; exit 1; }
if ! missing; then
    exit 0
fi
echo "      installing Slurm for the tests (110 MB, a minute; details in $log)"
install() {
    export DEBIAN_FRONTEND=noninteractive
    local packages=(slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core)
    # Lists of packages may be old, or not there at all.
    timeout --foreground 300 apt-get install -y --no-install-recommends "${packages[@]}" ||
        { timeout --foreground 300 apt-get update &&
            timeout --foreground 300 apt-get install -y --no-install-recommends "${packages[@]}"; }
}
if ! install >"$log" 2>&1 || missing; then
    tail -n 5 "$log" >&2
    echo "      Slurm or its accounts could not be installed (the whole log is in $log); tests that need them are skipped" >&2
fi
