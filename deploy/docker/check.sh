#!/usr/bin/env bash
# Tries the images without a daemon and without a registry, in clean Debians made by debootstrap, by the Dockerfiles.
# usage: sudo deploy/docker/check.sh [--packages] [--compile] [--programs] [--images] [FOLDER]
#   --packages  the steps of the last stages, for real, and whether the packages of the stage that builds can be had;
#               2 minutes, 400 MB
#   --compile   the stage that builds, step by step, with this machine's Rust toolchain in the place of that of rust:*;
#               half an hour or more, 6 GB (MUSTER_COMPILE_MINUTES limits it, default 120)
#   --programs  coordinator and worker as compose.yaml starts them, as user 10001 on a root that is read-only, with nothing
#               but what --packages has installed; they are those of --compile, or else of target/release (MUSTER_PROGRAMS
#               names another folder) with .cache/libtorch; a minute
#   --images    the images muster-coordinator and muster-worker:cpu, which buildah makes of the Dockerfiles on a base image of
#               that clean Debian, and a coordinator and a worker in containers of them; the programs are those of --programs,
#               as the stage that builds would hand them over; 4 minutes, 2 GB
# Without options: --packages and --programs. FOLDER is target/image-check unless it is said; its roots are made once and
# kept.
#
# Needs root, debootstrap, a package mirror (MUSTER_MIRROR), and buildah for --images. The base images of the registry are not tried.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "error: $*" >&2
    exit 1
}
chosen='' folder=target/image-check
for word in "$@"; do
    case $word in
    --packages | --compile | --programs | --images) chosen+=" $word" ;;
    -*) fail "no option $word; usage: deploy/docker/check.sh [--packages] [--compile] [--programs] [--images] [FOLDER]" ;;
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
clean=$folder/clean
clean_debian() {
    [ -f "$folder/.clean" ] && return
    rm -rf "$clean"
    echo "a clean $release in $clean"
    timeout 3000 debootstrap --variant=minbase "$release" "$clean" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
        fail "debootstrap: $(tail -n 1 "$folder/debootstrap.log")"
    rm -f "$clean"/var/cache/apt/archives/*.deb
    touch "$folder/.clean"
}
clean_root() {
    if [ ! -f "$1/.ready" ]; then
        clean_debian
        rm -rf "$1"
        cp -a "$clean" "$1"
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
    local step words run toolchain network minutes=${MUSTER_COMPILE_MINUTES:-120}
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
    # Where packages come from here, and by which way.
    mapfile -t network < <(env | grep -iE '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS)|CARGO_REGISTRIES_[A-Z_]*|(HTTPS?|NO)_PROXY)=' || true)
    instructions "$worker" build RUN | sed 's/--mount=[^ ]* *//g' | while IFS= read -r run; do
        echo "    ${run:0:100}"
        (
            # A namespace of its own: what is mounted ends with the step.
            exec unshare --mount --pid --fork --kill-child bash -ec '
                built=$1 toolchain=$2
                mount --bind "$toolchain" "$built/usr/local/rust"
                mount -t proc proc "$built/proc"
                shift 2
                exec timeout "$1" chroot "$built" env -i "${@:3}" PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
                    DEBIAN_FRONTEND=noninteractive CARGO_HOME=/usr/local/cargo PIP_DEFAULT_TIMEOUT=180 \
                    PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec "cd /src; $2"
            ' step "$built" "$toolchain" "${minutes}m" "$run"
        ) >"$folder/compile.log" 2>&1 </dev/null || fail "$worker: $run (at most $minutes minutes): $(tail -n 3 "$folder/compile.log")"
    done
    touch "$built/.compiled"
    echo "ok  the stage of $worker that builds"
}

# --- What the stage that builds hands over, in $folder/handed/out: its own, or by its own step.
hand_over() {
    local out=$folder/handed/out file collect program
    rm -rf "$folder/handed"
    mkdir -p "$out/bin" "$out/torch/lib" "$out/nvidia/cu13/lib"
    if [ -f "$built/.compiled" ]; then
        cp -r "$built/out/." "$out/"
        echo "    programs of $built"
    else
        for file in "$programs/muster" "$programs/muster-worker" .cache/libtorch/.ready; do
            [ -e "$file" ] || fail "$file is not there: deploy/setup/libtorch.sh and deploy/setup/build.sh make it"
        done
        collect=$(instructions "$worker" build RUN | grep '^site=' | sed "s#/out#$out#g")
        bash -ec "$collect" || fail "the step that collects libtorch's libraries"
        for program in muster muster-worker; do
            strip --strip-debug -o "$out/bin/$program" "$programs/$program"
        done
        echo "    programs of $programs"
    fi
    # The coordinator's stage puts its program elsewhere.
    cp "$out/bin/muster" "$out/muster"
}

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
# Whether a coordinator has a worker: joined ADDRESS TOKEN
joined() {
    curl --silent --insecure --max-time 5 --header "Authorization: Bearer $2" "$1/metrics" |
        grep --fixed-strings 'muster_slots{state="free"} 1'
}

# --- As compose.yaml starts them, in a root without a container.
variables() { instructions "$1" "$2" ENV | tr -s ' ' '\n'; }
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
# Looks as the image's health check does, inside the namespaces of the worker.
healthy() {
    local first
    first=$(pgrep --parent "${ends[1]}") || return 1
    nsenter --target "$first" --pid --mount chroot "$root" sh -c \
        "grep --text --quiet --no-messages 'muster-worker.[r]unner' /proc/[0-9]*/cmdline"
}
# The first process of each namespace, without which there are no others; unshare itself waits for it.
ends=()
end_all() {
    local end
    for end in "${ends[@]}"; do pkill -KILL --parent "$end" || true; done
}
check_programs() {
    local of_coordinator of_worker program lost version said token address
    [ -f "$root/.packages" ] || fail "no packages in $root: --packages first"
    rm -rf "$root/opt/muster"
    mkdir -p "$root/opt/muster"
    cp -r "$folder/handed/out/torch" "$folder/handed/out/nvidia" "$root/opt/muster/"
    cp "$folder/handed/out/bin/"* "$root/usr/local/bin/"
    mkdir -p "$folder/state" "$folder/cache" "$folder/access" "$root/sys" "$root/proc"
    rm -rf "${folder:?}"/{state,access}/*
    chown -R 10001:10001 "$folder/state" "$folder/cache" "$folder/access"
    chmod 700 "$folder/state" "$folder/cache" "$folder/access"
    mapfile -t of_coordinator < <(variables "$coordinator" last)
    mapfile -t of_worker < <(variables "$worker" base)
    for program in muster muster-worker; do
        lost=$(confined "${of_worker[@]}" /lib64/ld-linux-x86-64.so.2 --list "/usr/local/bin/$program" 2>&1 |
            grep -E 'not found|cannot open' || true)
        [ -z "$lost" ] || fail "$program lacks libraries: $lost"
        version=$(confined "${of_worker[@]}" "$program" --version)
        echo "ok  $version, all libraries found"
    done
    # A folder in which everybody may write, were the root not read-only.
    confined "${of_coordinator[@]}" sh -c 'touch /var/tmp/x 2>/dev/null' && fail "the root can be written to"
    said=$(confined "${of_worker[@]}" muster-worker check-collectives)
    echo "ok  $said"

    trap end_all EXIT
    confine "${of_coordinator[@]}" muster serve --no-workers --listen 127.0.0.1:0 --tls auto >"$folder/coordinator.log" 2>&1 &
    ends+=($!)
    await "the coordinator is healthy (muster ls)" confined "${of_coordinator[@]}" muster ls
    confined "${of_coordinator[@]}" \
        muster token create --scope worker --name compose --expires never --output /run/muster/worker.json >/dev/null
    confine "${of_worker[@]}" MUSTER_ACCESS=/run/muster/worker.json muster-worker supervise >"$folder/worker.log" 2>&1 &
    ends+=($!)
    await "the worker is healthy (its runner lives)" healthy
    token=$(confined "${of_coordinator[@]}" muster token create --scope read --name check 2>/dev/null)
    address=$(sed -n 's/^serving on //p' "$folder/coordinator.log")
    await "the coordinator has the worker's slot, over TLS, by its token" joined "$address" "$token"
    end_all
    ends=()
    trap - EXIT
    echo "the programs are fine with what the images have"
}

# --- The images themselves, and containers of them with the fences of compose.yaml.
base=docker.io/library/debian:$release-slim
# podman with a store of its own, which no other podman sees, at most `limit` seconds. runc knows older layouts of control
# groups too.
pod() {
    local runtime=()
    ! command -v runc >/dev/null || runtime=(--runtime runc)
    CONTAINERS_STORAGE_CONF=$folder/storage.conf timeout "${limit:-60}" podman "${runtime[@]}" --cgroup-manager cgroupfs --events-backend none "$@" \
        2> >(grep --invert-match --ignore-case 'systemd connection' >&2)
}
contain() { # NAME OPTION... IMAGE WORD...
    pod run --detach --name "$1" --network host --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges \
        --ulimit nofile=1024:4096 --ulimit nproc=1024:2048 "${@:2}" >>"$folder/images.log" || fail "$1: $(tail -n 3 "$folder/images.log")"
}
end_containers() {
    pod rm --force --time 5 --volumes check-worker check-coordinator >/dev/null 2>&1 || true
    pod volume rm --force check-access >/dev/null 2>&1 || true
}
check_images() {
    local step name file target token address user
    command -v podman >/dev/null || fail "podman is missing: apt-get install podman runc"
    clean_debian
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/images"\nrunroot = "%s/containers"\n' "$folder" "$folder" >"$folder/storage.conf"
    if ! pod image exists "$base"; then
        tar --create --directory "$clean" . | limit=600 pod import - "$base" >"$folder/images.log" 2>&1 || fail "the base image: $(tail -n 3 "$folder/images.log")"
    fi
    for step in "muster-coordinator $coordinator" "muster-worker:cpu $worker cpu"; do
        read -r name file target <<<"$step"
        # The context `build` takes the place of the stage of this name, which needs rust:* from a registry.
        limit=1200 pod build --isolation chroot --network host --pull-never --format docker \
            ${target:+--target "$target"} --build-context "build=$folder/handed" --tag "localhost/$name" --file "$file" . \
            >"$folder/images.log" 2>&1 || fail "$file: $(tail -n 3 "$folder/images.log")"
        echo "ok  the image $name, $(($(pod image inspect --format '{{.Size}}' "localhost/$name") >> 20)) MiB"
    done

    trap end_containers EXIT
    end_containers
    contain check-coordinator --volume check-access:/run/muster --volume /var/lib/muster \
        localhost/muster-coordinator serve --no-workers --listen 127.0.0.1:0 --tls auto
    await "the coordinator is healthy, by its image's own check" pod healthcheck run check-coordinator
    pod exec check-coordinator muster token create --scope worker --name compose --expires never \
        --output /run/muster/worker.json >/dev/null
    contain check-worker --volume check-access:/run/muster --volume /var/cache/muster \
        --env MUSTER_ACCESS=/run/muster/worker.json localhost/muster-worker:cpu
    await "the worker is healthy, by its image's own check" pod healthcheck run check-worker
    for name in check-coordinator check-worker; do
        user=$(pod exec "$name" id --user)
        [ "$user" = 10001 ] || fail "$name runs as user $user"
        pod exec "$name" sh -c 'touch /var/tmp/x 2>/dev/null' && fail "the root of $name can be written to"
    done
    token=$(pod exec check-coordinator muster token create --scope read --name check 2>/dev/null)
    address=$(pod logs check-coordinator 2>&1 | sed -n 's/^serving on //p')
    await "the coordinator has the worker's slot, over TLS, by its token" joined "$address" "$token"
    pod stop --time 20 check-worker >/dev/null
    echo "ok  the worker ends when it is told to, with $(pod inspect --format '{{.State.ExitCode}}' check-worker)"
    end_containers
    trap - EXIT
    echo "the images are fine; their base and the stage that builds were this machine's"
}

case $chosen in *--packages*) check_packages ;; esac
case $chosen in *--compile*) check_compile ;; esac
case $chosen in *--programs* | *--images*) hand_over ;; esac
case $chosen in *--programs*) check_programs ;; esac
case $chosen in *--images*) check_images ;; esac
