#!/usr/bin/env bash
# Builds libmuster_nccl.so beside the release binaries: gradients go through NCCL where it is there and a slot
# has a GPU. Needs no GPU. Headers come out of wheels (200 MB, of which 1 is kept).
set -euo pipefail
cd "$(dirname "$0")/../.."

nccl=2.28.9 # of torch 2.11
crt=13.0.88  # of the toolkit that deploy/setup/libtorch.sh takes, as is the next
cccl=13.0.85
deploy/setup/libtorch.sh
libtorch=${LIBTORCH:-$PWD/.cache/libtorch/farm}
home=.cache/nccl
out=target/release/libmuster_nccl.so
library=$(dirname "$(readlink -f "$libtorch/lib/libtorch_cpu.so")")
if [ ! -e "$library/libtorch_cuda.so" ]; then
    echo "error: $library has no CUDA part of libtorch" >&2
    exit 1
fi
recipe="nccl $nccl, crt $crt, cccl $cccl"
if [ ! -f "$home/.ready" ] || [ "$(cat "$home/.ready")" != "$recipe" ]; then
    rm -rf "$home"
    mkdir -p "$home/wheels"
    echo "      fetching headers of NCCL $nccl and CUDA (200 MB)"
    if ! timeout --foreground 1200 python3 -m pip download --no-deps --no-cache-dir --only-binary :all: \
        --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$home/wheels" "nvidia-nccl-cu13==$nccl" "nvidia-cuda-crt==$crt" "nvidia-cuda-cccl==$cccl" >"$home/setup.log" 2>&1; then
        tail -n 5 "$home/setup.log" >&2
        echo "error: wheels of NCCL and CUDA cannot be fetched; the whole output is in $home/setup.log" >&2
        exit 1
    fi
    python3 - "$home" <<'PYTHON'
import pathlib
import sys
import zipfile

home = pathlib.Path(sys.argv[1])
for wheel in sorted((home / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            _, found, rest = name.partition("/include/")
            if found and rest and not rest.endswith("/"):
                target = home / "include" / rest
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
PYTHON
    rm -rf "$home/wheels"
    echo "$recipe" >"$home/.ready"
fi
mkdir -p target/release
# Headers of the CUDA runtime lie in the wheel's environment, as deploy/setup/libtorch.sh makes it, or in a toolkit.
cuda=$(find -L "$library/../../nvidia" "${CUDA_HOME:-/usr/local/cuda}" -name cuda_runtime_api.h -print -quit 2>/dev/null || true)
if [ -z "$cuda" ]; then
    echo "error: no cuda_runtime_api.h beside $library; set CUDA_HOME to a CUDA toolkit" >&2
    exit 1
fi
"${CXX:-c++}" -std=c++17 -O2 -fPIC -shared -D_GLIBCXX_USE_CXX11_ABI=1 -o "$out" worker/shim/nccl/plugin.cpp \
    -Iworker/shim/nccl/include -isystem "$home/include" -isystem "$home/include/cccl" -isystem "$(dirname "$cuda")" \
    -isystem "$libtorch/include" -isystem "$libtorch/include/torch/csrc/api/include" \
    -L"$library" -Wl,--no-as-needed -ltorch_cuda -lc10_cuda -ltorch_cpu -lc10 -Wl,-z,defs -Wl,--allow-shlib-undefined
echo "      $out"
