#!/usr/bin/env bash
# A Kubernetes of its own for a test program: etcd, an API server and the controllers of Jobs and of garbage, all on
# 127.0.0.1 and in one directory. There are no nodes: the test plays the kubelet. It lives until standard input ends;
# a line `restart` on it ends the API server and starts it again.
#
#   kubernetes.sh DIRECTORY FIRST_PORT FOLDER_OF_PROGRAMS
#
# Two users: `admin`, who may everything, and `launcher`, who may what the test's bindings say. Their kubeconfigs are
# DIRECTORY/admin.yaml and DIRECTORY/launcher.yaml; DIRECTORY/audit.log has every request of the second.
set -euo pipefail
directory=$1 port=$2 programs=$3

stop() {
    local file
    for file in "$directory"/*.pid; do
        [ -s "$file" ] || continue
        kill -9 "$(cat "$file")" 2>/dev/null || true
    done
    rm -rf "$directory"
}
trap stop EXIT

mkdir -p "$directory"
cd "$directory"
(umask 077 && openssl genrsa -out signing.key 2048 2>/dev/null)
openssl rsa -in signing.key -pubout -out signing.pub 2>/dev/null
for user in admin launcher; do
    token=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
    groups=""
    [ "$user" = admin ] && groups=",system:masters"
    echo "$token,$user,$user$groups" >>tokens.csv
    cat >$user.yaml <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", certificate-authority: "$directory/certificates/apiserver.crt"}}]
users: [{name: $user, user: {token: "$token"}}]
contexts: [{name: test, context: {cluster: test, user: $user, namespace: default}}]
current-context: test
CONFIG
done
cat >audit.yaml <<'CONFIG'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - {level: Metadata, users: [launcher]}
  - {level: None}
CONFIG

etcd --data-dir "$directory/etcd" \
    --listen-client-urls "http://127.0.0.1:$((port + 1))" --advertise-client-urls "http://127.0.0.1:$((port + 1))" \
    --listen-peer-urls "http://127.0.0.1:$((port + 2))" --initial-advertise-peer-urls "http://127.0.0.1:$((port + 2))" \
    --initial-cluster "default=http://127.0.0.1:$((port + 2))" --unsafe-no-fsync >etcd.log 2>&1 </dev/null &
echo $! >etcd.pid

serve() {
    "$programs/kube-apiserver" --etcd-servers="http://127.0.0.1:$((port + 1))" \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$port" \
        --cert-dir="$directory/certificates" --token-auth-file="$directory/tokens.csv" \
        --authorization-mode=RBAC --service-cluster-ip-range=10.0.0.0/24 \
        --service-account-issuer=https://tests.example.com --service-account-key-file=signing.pub \
        --service-account-signing-key-file=signing.key --endpoint-reconciler-type=none \
        --disable-admission-plugins=ServiceAccount --feature-gates=TTLAfterFinished=true \
        --audit-policy-file=audit.yaml --audit-log-path="$directory/audit.log" >>apiserver.log 2>&1 </dev/null &
    echo $! >apiserver.pid
}

is_ready() {
    local token
    token=$(cut -d, -f1 tokens.csv | head -n 1)
    [ "$(curl -sk --max-time 2 -H "Authorization: Bearer $token" "https://127.0.0.1:$port/readyz" 2>/dev/null)" = ok ]
}

await() {
    for _ in $(seq 1 1200); do
        is_ready && return 0
        sleep 0.1
    done
    return 1
}

serve
await || exit 1
"$programs/kube-controller-manager" --kubeconfig=admin.yaml --leader-elect=false \
    --bind-address=127.0.0.1 --secure-port="$((port + 3))" --port=0 --cert-dir="$directory/certificates-of-controllers" \
    --feature-gates=TTLAfterFinished=true \
    --controllers=job,garbagecollector,namespace,resourcequota,ttl-after-finished >controllers.log 2>&1 </dev/null &
echo $! >controllers.pid
echo ready
while read -r line; do
    case $line in
    restart)
        kill -9 "$(cat apiserver.pid)"
        wait "$(cat apiserver.pid)" 2>/dev/null || true
        serve
        await || exit 1
        echo ready
        ;;
    esac
done
