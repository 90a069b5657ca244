#!/usr/bin/env bash
# Packs what a GPU machine needs for the check into target/gpu-check.tar.gz: the two programs without their debugging
# tables, the plugin for NCCL, this folder, and, where MUSTER_SHARED (default: ../shared) has IMDB, some of its reviews. Carry it there, unpack
# it, and run ./check.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/setup/check.sh
deploy/setup/libtorch.sh
deploy/setup/demo_inputs.sh
deploy/setup/python_readers.sh
deploy/setup/build.sh target/build.log
home=target/gpu-check
rm -rf "$home"
mkdir -p "$home/model"
for program in muster muster-worker; do
    strip --strip-debug -o "$home/$program" "target/release/$program"
done
deploy/setup/nccl_plugin.sh
cp target/release/libmuster_nccl.so "$home/"
cp deploy/gpu-check/*.py deploy/gpu-check/check.sh "$home/"
cp .cache/demo/minilm/vocab.txt .cache/demo/minilm/tokenizer*.json "$home/model/"
reviews=${MUSTER_SHARED:-../shared}/data/imdb/train.parquet
if [ -f "$reviews" ]; then
    .cache/python/bin/python - "$reviews" "$home/reviews.jsonl" <<'PYTHON'
import json
import random
import sys

import pyarrow.parquet

rows = pyarrow.parquet.read_table(sys.argv[1]).to_pylist()
random.Random(1).shuffle(rows)
with open(sys.argv[2], "w", encoding="utf-8") as file:
    for row in rows[:6000]:
        file.write(json.dumps({"text": row["text"], "label": row["label"]}) + "\n")
PYTHON
fi
tar -C target -czf target/gpu-check.tar.gz gpu-check
echo "target/gpu-check.tar.gz, $(du -h target/gpu-check.tar.gz | cut -f 1)"
