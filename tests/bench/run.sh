#!/usr/bin/env bash
# `make bench`: sets up, builds, and measures; see tests/bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/setup/check.sh
deploy/setup/libtorch.sh
deploy/setup/demo_inputs.sh
deploy/setup/python_readers.sh
mkdir -p target/bench
deploy/setup/build.sh target/bench/build.log
exec .cache/python/bin/python tests/bench/bench.py "$@"
