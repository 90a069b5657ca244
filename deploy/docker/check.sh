#!/usr/bin/env bash
# Tries the images without a container runtime: the steps of the Dockerfiles' last stages, in a clean Debian made by
# debootstrap, and then coordinator and worker in it as compose.yaml starts them: as user 10001, on a root that is read-only.
# usage: sudo deploy/docker/check.sh [FOLDER]    (default target/image-check; its root is made once and kept)
#
# Needs root, debootstrap, a package mirror (MUSTER_MIRROR), and what a build gives: target/release/muster and muster-worker
# (MUSTER_PROGRAMS names another folder) and .cache/libtorch. The base images and the compilation in rust:* are not tried.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$(realpath -m "${1:-target/image-check}")
programs=${MUSTER_PROGRAMS:-target/release}
root=$folder/root
mirror=${MUSTER_MIRROR:-http://deb.debian.org/debian}
coordinator=deploy/docker/coordinator.Dockerfile
worker=deploy/docker/worker.Dockerfile

fail() {
    echo "error: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "chroot and mounts need root"
for program in debootstrap curl strip; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install debootstrap curl binutils"
done
for file in "$programs/muster" "$programs/muster-worker" .cache/libtorch/.ready; do
    [ -e "$file" ] || fail "$file is not there: deploy/setup/libtorch.sh and deploy/setup/build.sh make it"
done

# Instructions of one stage, each on one line: stage FILE NAME, where NAME is what FROM calls it, or `last`.
stage() {
    awk -v wanted="$2" '
        /^[ \t]*#/ { next }
        { line = line $0 }
        /\\$/ { sub(/\\$/, " ", line); next }
        { if (line ~ /^FROM /) { count++; if (sub(/.* AS /, "", line)) name[count] = line }
          else if (line != "") text[count] = text[count] line "\n"
          line = "" }
        END { for (i = 1; i <= count; i++) if (name[i] == wanted || (wanted == "last" && i == count)) printf "%s", text[i] }
    ' "$1"
}
instructions() { stage "$1" "$2" | sed -n "s/^$3 //p"; }

# --- The root: a clean Debian of the release that the images name, with the steps of both in it.
release=$(sed -n 's/^FROM debian:\([a-z]*\)-slim.*/\1/p' "$coordinator" "$worker" | sort -u)
[ "$(echo "$release" | wc -w)" = 1 ] || fail "the images name several releases of Debian: $release"
mkdir -p "$folder"
if [ ! -f "$root/.ready" ]; then
    rm -rf "$root"
    echo "a clean $release in $root"
    timeout 3000 debootstrap --variant=minbase "$release" "$root" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
        fail "debootstrap: $(tail -n 1 "$folder/debootstrap.log")"
    touch "$root/.ready"
fi
in_root() { timeout 600 chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
[ -f "$folder/resolv.conf" ] || cp /etc/resolv.conf "$folder/resolv.conf"
cp "$folder/resolv.conf" "$root/etc/resolv.conf"
for step in "$coordinator last" "$worker base"; do
    read -r file name <<<"$step"
    # The second image's user is there by the first one's step.
    in_root sh -c '! id muster >/dev/null 2>&1 || userdel muster; ! getent group muster >/dev/null || groupdel muster'
    instructions "$file" "$name" RUN | while IFS= read -r run; do
        in_root sh -ec "$run" >"$folder/steps.log" 2>&1 || fail "$file: $run: $(tail -n 2 "$folder/steps.log")"
    done
    echo "ok  the steps of $file"
done
# Packages of the stages that build: that they are there, not what they do.
packages=$(instructions "$worker" build RUN | grep -o 'apt-get install [^&]*' | sed 's/apt-get install//; s/--[a-z-]*//g')
in_root sh -ec "apt-get update && apt-get install --simulate --no-install-recommends $packages" >"$folder/steps.log" 2>&1 ||
    fail "packages of the build: $(tail -n 2 "$folder/steps.log")"
echo "ok  packages of the build:" $packages

# --- What the build hands over, by its own step.
rm -rf "$folder/out"
mkdir -p "$folder/out/torch/lib" "$folder/out/nvidia/cu13/lib"
collect=$(instructions "$worker" build RUN | grep '^site=' | sed "s#/out#$folder/out#g")
bash -ec "$collect" || fail "the step that collects libtorch's libraries"
rm -rf "$root/opt/muster"
mkdir -p "$root/opt/muster"
mv "$folder/out/torch" "$folder/out/nvidia" "$root/opt/muster/"
for program in muster muster-worker; do
    strip --strip-debug -o "$root/usr/local/bin/$program" "$programs/$program"
done

# --- As compose.yaml starts them.
variables() { instructions "$1" "$2" ENV | tr -s ' ' '\n'; }
mkdir -p "$folder/state" "$folder/cache" "$folder/access" "$root/sys" "$root/proc"
rm -rf "${folder:?}"/{state,access}/*
chown -R 10001:10001 "$folder/state" "$folder/cache" "$folder/access"
chmod 700 "$folder/state" "$folder/cache" "$folder/access"
# Becomes a program there; the first words are variables. Its processes are a namespace and end together.
confine() {
    exec unshare --mount --pid --fork --kill-child bash -ec '
        root=$1 folder=$2; shift 2
        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mount --bind "$folder/state" "$root/var/lib/muster"
        mount --bind "$folder/cache" "$root/var/cache/muster"
        mount --bind "$folder/access" "$root/run/muster"
        exec chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all \
            env -i "$@"
    ' confined "$root" "$folder" PATH=/usr/local/bin:/usr/bin:/bin "$@"
}
confined() (confine "$@")
mapfile -t of_coordinator < <(variables "$coordinator" last)
mapfile -t of_worker < <(variables "$worker" base)
for program in muster muster-worker; do
    lost=$(confined "${of_worker[@]}" /lib64/ld-linux-x86-64.so.2 --list "/usr/local/bin/$program" 2>&1 |
        grep -E 'not found|cannot open' || true)
    [ -z "$lost" ] || fail "$program lacks libraries: $lost"
    version=$(confined "${of_worker[@]}" "$program" --version)
    echo "ok  $version, all libraries found"
done
confined "${of_coordinator[@]}" sh -c 'touch /usr/x 2>/dev/null' && fail "the root can be written to"
said=$(confined "${of_worker[@]}" muster-worker check-collectives)
echo "ok  $said"

# The first process of each namespace, without which there are no others; unshare itself waits for it.
ends=()
end_all() {
    local end
    for end in "${ends[@]}"; do pkill -KILL --parent "$end" || true; done
}
trap end_all EXIT
confine "${of_coordinator[@]}" muster serve --no-workers --listen 127.0.0.1:0 --tls auto >"$folder/coordinator.log" 2>&1 &
ends+=($!)
# Waits up to a minute for a command to succeed.
await() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >"$folder/await.log" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: $(tail -n 3 "$folder/await.log" "$folder"/*.log)"
        sleep 0.5
    done
    echo "ok  $what"
}
await "the coordinator is healthy (muster ls)" confined "${of_coordinator[@]}" muster ls
confined "${of_coordinator[@]}" \
    muster token create --scope worker --name compose --expires never --output /run/muster/worker.json >/dev/null
confine "${of_worker[@]}" MUSTER_ACCESS=/run/muster/worker.json muster-worker supervise >"$folder/worker.log" 2>&1 &
ends+=($!)
# Looks as the image's health check does, inside the namespaces of the worker.
healthy() {
    local first
    first=$(pgrep --parent "${ends[1]}") || return 1
    nsenter --target "$first" --pid --mount chroot "$root" sh -c \
        "grep --text --quiet --no-messages 'muster-worker.[r]unner' /proc/[0-9]*/cmdline"
}
await "the worker is healthy (its runner lives)" healthy
token=$(confined "${of_coordinator[@]}" muster token create --scope read --name check 2>/dev/null)
address=$(sed -n 's/^serving on //p' "$folder/coordinator.log")
joined() {
    curl --silent --insecure --max-time 5 --header "Authorization: Bearer $token" "$address/metrics" |
        grep --fixed-strings 'muster_slots{state="free"} 1'
}
await "the coordinator has the worker's slot, over TLS, by its token" joined
echo "the images' steps and programs are fine; images themselves were not built"
