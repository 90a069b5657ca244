#!/usr/bin/env bash
# Checks Muster on a machine with a GPU and torch 2.11: numbers, speed, memory, and the peers beside it where
# transformers is installed. usage: check.sh [--device cuda:0] [--small] [--steps N] [--out FILE]
# MUSTER_CHECK_NCCL names a libnccl.so.2 of 2.30 or newer, for ranks that share the GPU.
# MUSTER_CHECK_PYTHON names the Python that has torch (default: python3).
set -euo pipefail
cd "$(dirname "$0")"
python=${MUSTER_CHECK_PYTHON:-python3}
exec "$python" check.py "$@"
