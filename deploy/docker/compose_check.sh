#!/usr/bin/env bash
# Starts compose.yaml for real, trains a small sweep there, and disturbs it: a worker that is killed, a coordinator that is
# started again. With a Docker daemon of its own, which ends with this script and which no other one sees.
# usage: sudo deploy/docker/compose_check.sh [FOLDER]
# FOLDER is that of check.sh, which has made the images: `check.sh --images` first (target/image-check unless it is said).
# The S3 server's image is this project's SeaweedFS (deploy/setup/s3_server.sh) on the same base, under the name that
# compose.yaml gives. Needs root, dockerd, podman, docker-compose (deploy/setup/linters.sh), the inputs of the demo
# (deploy/setup/demo_inputs.sh), a package mirror, port 7700; 6 minutes, 3 GB.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "error: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a Docker daemon needs root"
folder=$(realpath -m "${1:-target/image-check}")
compose=$PWD/.cache/linters/bin/docker-compose weed=$PWD/.cache/s3-server/bin/weed inputs=$PWD/.cache/demo
for program in dockerd docker podman; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install docker.io podman runc"
done
for file in "$compose" "$weed" "$inputs/.ready" "$folder/storage.conf"; do
    [ -e "$file" ] || fail "$file is not there; the head of this script says what makes it"
done

# --- A daemon.
export DOCKER_HOST=unix://$folder/docker.sock COMPOSE_PROJECT_NAME=muster-check
mkdir -p "$folder/docker"
dockerd --data-root "$folder/docker" --exec-root "$folder/docker-run" --pidfile "$folder/docker.pid" --host "$DOCKER_HOST" \
    >"$folder/docker.log" 2>&1 &
daemon=$!
place=$folder/compose
end() {
    (cd "$place" 2>/dev/null && timeout 200 "$compose" down --volumes --timeout 20 >"$folder/compose.log" 2>&1) || true
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
}
trap end EXIT
# Waits up to so many seconds for a command to succeed: await SECONDS WHAT COMMAND...
await() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$folder/await.log" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: $(tail -n 3 "$folder/await.log" "$folder/docker.log")"
        sleep 0.5
    done
    echo "ok  $what"
}
await 60 "a Docker daemon" docker info

# --- Images under the names of compose.yaml.
for name in muster-coordinator muster-worker:cpu; do
    wanted=$(CONTAINERS_STORAGE_CONF=$folder/storage.conf podman image inspect --format '{{.Id}}' "localhost/$name")
    if [ "$(docker image inspect --format '{{.Id}}' "$name" 2>/dev/null)" != "sha256:$wanted" ]; then
        CONTAINERS_STORAGE_CONF=$folder/storage.conf timeout 900 podman save --format docker-archive "localhost/$name" 2>/dev/null |
            docker load --quiet >/dev/null
        docker tag "localhost/$name" "$name"
    fi
done
store=$(sed -n 's/^    image: \(.*seaweedfs.*\)$/\1/p' deploy/docker/compose.yaml | sort -u)
if ! docker image inspect "$store" >/dev/null 2>&1; then
    mkdir -p "$folder/store"
    cp "$weed" "$folder/store/weed"
    printf '%s\n' 'FROM muster-coordinator' 'USER root' 'RUN apt-get update && apt-get install --yes --no-install-recommends wget' \
        'COPY weed /usr/bin/weed' 'HEALTHCHECK NONE' 'ENTRYPOINT ["weed"]' 'CMD []' >"$folder/store/Dockerfile"
    DOCKER_BUILDKIT=0 timeout 600 docker build --quiet --network host --tag "$store" "$folder/store" >/dev/null
fi
echo "ok  images: $(docker image ls --format '{{.Repository}}:{{.Tag}}' --filter dangling=false | grep --invert-match localhost/ | paste -sd' ')"

# --- compose.yaml, with a data folder of its own.
rm -rf "$place"
mkdir -p "$place"
cp deploy/docker/compose.yaml deploy/docker/secrets.sh "$place/"
mkdir "$place/data"
cp -rL "$inputs/minilm" "$place/data/minilm"
cp "$inputs/movie-reviews/sentences.tsv" "$place/data/"
cat >"$place/data/manifest.yaml" <<'YAML'
version: 1
name: fenced
seed: 7
model: {pretrained: /data/minilm, max_length: 32, freeze: {embeddings: true, layers: 5}}
data:
  train: {path: /data/sentences.tsv, format: tsv, columns: [id, rating, text]}
  validation: {examples: 200}
  text: text
  label:
    column: rating
    ranges: [{name: negative, below: -0.5}, {name: positive, above: 0.5}]
hyperparameters: {learning_rate: {min: 1e-4, max: 6e-4, scale: log}}
searcher: {metric: accuracy, max_trials: 4, sampler: random}
budget: {steps: 60}
training: {evaluate_every: {steps: 20}}
YAML
chmod -R a+rX "$place/data"
cd "$place"
./secrets.sh
timeout 300 "$compose" up --detach --no-build >"$folder/compose.log" 2>&1 || fail "compose up: $(tail -n 5 "$folder/compose.log")"
echo "ok  everything is up: $("$compose" ps --services --status running | paste -sd' ')"
inside() { "$compose" exec -T coordinator "$@"; }
both_free() { [ "$(inside muster slots | grep -c free)" = 2 ]; }
await 120 "two workers have joined over TLS, by the token from the service access" both_free

# --- A sweep that is disturbed.
inside muster submit /data/manifest.yaml >/dev/null
at_work() { inside muster ls | grep --quiet "[1-9] running"; }
await 300 "the sweep trains" at_work
docker kill --signal KILL muster-check-worker-1 >/dev/null
echo "    worker-1 is killed"
sleep 2
docker kill --signal KILL muster-check-coordinator-1 >/dev/null
echo "    the coordinator is killed"
# `restart: unless-stopped` does not count for what was killed by hand.
docker start muster-check-coordinator-1 muster-check-worker-1 >/dev/null
through() { inside muster ls | grep --quiet 'fenced-1 *completed *4 of 4'; }
await 900 "it is through, all four trials, with both killed in the middle" through
objects() { docker exec muster-check-store-1 sh -c 'echo "fs.tree /buckets/muster/experiments/experiments/fenced-1/best" | weed shell -master=store:9333 -filer=store:8888' | grep --quiet model.safetensors; }
await 30 "the best model is in the S3 server" objects
for name in worker-1 worker-2 coordinator-1; do
    [ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}}' "muster-check-$name")" = "true 10001:10001 [ALL]" ] ||
        fail "$name runs without its fences"
done
timeout 200 "$compose" stop --timeout 30 worker >"$folder/compose.log" 2>&1
codes=$(docker inspect --format '{{.State.ExitCode}}' muster-check-worker-1 muster-check-worker-2 | paste -sd' ')
[ "$codes" = "0 0" ] || fail "workers that were told to stop ended with $codes"
echo "ok  workers that are told to stop end with 0"
echo "compose.yaml is fine; base images, SeaweedFS's image and the stage that builds were this machine's"
