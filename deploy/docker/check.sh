#!/usr/bin/env bash
# Tries the images without a container runtime, in clean Debians made by debootstrap, by the steps of the Dockerfiles.
# usage: sudo deploy/docker/check.sh [--packages] [--compile] [--programs] [FOLDER]
#   --packages  the steps of the last stages, for real, and whether the packages of the stage that builds can be had;
#               2 minutes, 400 MB
#   --compile   the stage that builds, step by step, with this machine's Rust toolchain in the place of that of rust:*;
#               half an hour or more, 6 GB (MUSTER_COMPILE_MINUTES limits it, default 120)
#   --programs  coordinator and worker as compose.yaml starts them, as user 10001 on a root that is read-only, with nothing
#               but what --packages has installed; they are those of --compile, or else of target/release (MUSTER_PROGRAMS
#               names another folder) with .cache/libtorch; a minute
# Without options: --packages and --programs. FOLDER is target/image-check unless it is said; its roots are made once and
# kept.
#
# Needs root, debootstrap and a package mirror (MUSTER_MIRROR). The base images themselves are not tried.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "error: $*" >&2
    exit 1
}
chosen='' folder=target/image-check
for word in "$@"; do
    case $word in
    --packages | --compile | --programs) chosen+=" $word" ;;
    -*) fail "no option $word; usage: deploy/docker/check.sh [--packages] [--compile] [--programs] [FOLDER]" ;;
    *) folder=$word ;;
    esac
done
chosen=${chosen:- --packages --programs}
folder=$(realpath -m "$folder")
programs=${MUSTER_PROGRAMS:-target/release}
root=$folder/root
built=$folder/built
mirror=${MUSTER_MIRROR:-http://deb.debian.org/debian}
coordinator=deploy/docker/coordinator.Dockerfile
worker=deploy/docker/worker.Dockerfile

[ "$(id -u)" = 0 ] || fail "chroot and mounts need root"
for program in debootstrap curl strip; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install debootstrap curl binutils"
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

# --- Roots: a clean Debian of the release that the images name.
release=$(sed -n 's/^FROM debian:\([a-z]*\)-slim.*/\1/p' "$coordinator" "$worker" | sort -u)
[ "$(echo "$release" | wc -w)" = 1 ] || fail "the images name several releases of Debian: $release"
mkdir -p "$folder"
[ -f "$folder/resolv.conf" ] || cp /etc/resolv.conf "$folder/resolv.conf"
clean_root() {
    if [ ! -f "$1/.ready" ]; then
        rm -rf "$1"
        echo "a clean $release in $1"
        timeout 3000 debootstrap --variant=minbase "$release" "$1" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
            fail "debootstrap: $(tail -n 1 "$folder/debootstrap.log")"
        touch "$1/.ready"
    fi
    cp "$folder/resolv.conf" "$1/etc/resolv.conf"
}
# Runs a command in a root: inside SECONDS ROOT VARIABLE... COMMAND...
inside() {
    local seconds=$1 where=$2
    shift 2
    timeout "$seconds" chroot "$where" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

# --- The last stages, both in one root.
check_packages() {
    local step file name run packages
    clean_root "$root"
    for step in "$coordinator last" "$worker base"; do
        read -r file name <<<"$step"
        # The second image's user is there by the first one's step.
        inside 60 "$root" sh -c '! id muster >/dev/null 2>&1 || userdel muster; ! getent group muster >/dev/null || groupdel muster'
        instructions "$file" "$name" RUN | while IFS= read -r run; do
            inside 600 "$root" sh -ec "$run" >"$folder/steps.log" 2>&1 </dev/null || fail "$file: $run: $(tail -n 2 "$folder/steps.log")"
        done
        echo "ok  the steps of $file"
    done
    packages=$(instructions "$worker" build RUN | grep -o 'apt-get install [^&]*' | sed 's/apt-get install//; s/--[a-z-]*//g')
    inside 600 "$root" sh -ec "apt-get update && apt-get install --simulate --no-install-recommends $packages" >"$folder/steps.log" 2>&1 ||
        fail "packages of the build: $(tail -n 2 "$folder/steps.log")"
    echo "ok  packages of the build can be had:" $packages
    touch "$root/.packages"
}

# --- The stage that builds, in a root of its own.
check_compile() {
    local step words run toolchain minutes=${MUSTER_COMPILE_MINUTES:-120}
    command -v rustc >/dev/null || fail "rustc is missing: its toolchain takes the place of that of rust:*"
    toolchain=$(rustc --print sysroot)
    clean_root "$built"
    # What rust:* has, as far as it is needed: a C++ compiler, make, and the toolchain.
    inside 600 "$built" sh -ec 'apt-get update && apt-get install --yes --no-install-recommends ca-certificates g++ make' \
        >"$folder/compile.log" 2>&1 || fail "the compiler's packages: $(tail -n 2 "$folder/compile.log")"
    # Mirrors may have certificates that only this machine trusts.
    cp /etc/ssl/certs/ca-certificates.crt "$built/etc/ssl/certs/ca-certificates.crt"
    mkdir -p "$built/usr/local/rust" "$built/usr/local/cargo" "$built/src"
    instructions "$worker" build COPY | while IFS= read -r step; do
        read -ra words <<<"$step"
        local target=$built/src/${words[-1]}
        if [ "${#words[@]}" -gt 2 ] || [[ $target == */ ]]; then mkdir -p "$target"; fi
        if [ -d "${words[0]}" ]; then
            mkdir -p "$target"
            cp -r "${words[0]}/." "$target"
        else
            cp "${words[@]:0:${#words[@]}-1}" "$target"
        fi
    done
    instructions "$worker" build RUN | sed 's/--mount=[^ ]* *//g' | while IFS= read -r run; do
        echo "    ${run:0:100}"
        (
            # A namespace of its own: what is mounted ends with the step.
            exec unshare --mount --pid --fork --kill-child bash -ec '
                built=$1 toolchain=$2
                mount --bind "$toolchain" "$built/usr/local/rust"
                mount -t proc proc "$built/proc"
                shift 2
                exec timeout "$1" chroot "$built" env -i PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
                    DEBIAN_FRONTEND=noninteractive CARGO_HOME=/usr/local/cargo PIP_DEFAULT_TIMEOUT=180 \
                    PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec "cd /src; $2"
            ' step "$built" "$toolchain" "${minutes}m" "$run"
        ) >"$folder/compile.log" 2>&1 </dev/null || fail "$worker: $run (at most $minutes minutes): $(tail -n 3 "$folder/compile.log")"
    done
    touch "$built/.compiled"
    echo "ok  the stage of $worker that builds"
}

case $chosen in *--packages*) check_packages ;; esac
case $chosen in *--compile*) check_compile ;; esac
case $chosen in *--programs*) ;; *) exit 0 ;; esac
[ -f "$root/.packages" ] || fail "no packages in $root: --packages first"

# --- What the build hands over: its own, or by its own step.
rm -rf "$folder/out" "$root/opt/muster"
mkdir -p "$root/opt/muster"
if [ -f "$built/.compiled" ]; then
    cp -r "$built/out/torch" "$built/out/nvidia" "$root/opt/muster/"
    cp "$built/out/bin/"* "$root/usr/local/bin/"
    echo "    programs of $built"
else
    for file in "$programs/muster" "$programs/muster-worker" .cache/libtorch/.ready; do
        [ -e "$file" ] || fail "$file is not there: deploy/setup/libtorch.sh and deploy/setup/build.sh make it"
    done
    mkdir -p "$folder/out/torch/lib" "$folder/out/nvidia/cu13/lib"
    collect=$(instructions "$worker" build RUN | grep '^site=' | sed "s#/out#$folder/out#g")
    bash -ec "$collect" || fail "the step that collects libtorch's libraries"
    mv "$folder/out/torch" "$folder/out/nvidia" "$root/opt/muster/"
    for program in muster muster-worker; do
        strip --strip-debug -o "$root/usr/local/bin/$program" "$programs/$program"
    done
    echo "    programs of $programs"
fi

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
echo "the programs are fine with what the images have; images themselves were not built"
