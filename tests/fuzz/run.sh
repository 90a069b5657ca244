#!/usr/bin/env bash
# `make fuzz [SECONDS_EACH=60] [TARGET=metrics]`: libFuzzer on whatever parses bytes from a store or a user. Builds with the
# stable compiler: coverage comes from LLVM's own pass. A finding stays in target/fuzz/findings and fails the run.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
seconds=${1:-60}
only=${2:-}
work=$root/target/fuzz
mkdir -p "$work"

"$root"/deploy/setup/libtorch.sh
# The versions of the product; of the fuzzer's own crates those in Cargo.toml.
cp "$root"/Cargo.lock Cargo.lock
trap 'rm -f Cargo.lock' EXIT

export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
# With --target build scripts and macros go without the instrumentation.
host=$(rustc -vV | sed -n 's/^host: //p')
echo "building (minutes the first time; $work/build.log)"
timeout 3600 cargo build --release --target "$host" --target-dir "$work" >"$work/build.log" 2>&1 ||
    { tail -n 40 "$work/build.log" >&2; exit 1; }

# Good files to begin with.
seeds() {
    case $1 in
    metrics) cp "$root"/common/src/metric/golden/*.parquet "$2" ;;
    manifest) cp "$root"/configs/*.yaml "$root"/common/tests/full.yaml "$2" ;;
    tensors) find "$root"/tests/golden/hf -name '*.safetensors' -size -16k -print0 |
        while IFS= read -r -d '' file; do cp "$file" "$2/$(basename "$(dirname "$file")")-$(basename "$file")"; done ;;
    checkpoint_index)
        local digest
        digest=$(printf 'a' | sha256sum | cut -d ' ' -f 1)
        printf '{"format":2,"checkpoint":{"trial":{"experiment":"demo-1","number":1},"step":40,"generation":3},"attempt":1,"parent":null,"pretrained":"%s","created_at":0,"parts":[{"name":"model","bytes":5,"sha256":"%s"}]}' \
            "$digest" "$digest" >"$2/index"
        ;;
    esac
}

status=0
for target in checkpoint_index manifest metrics tensors; do
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    corpus=$work/corpus/$target findings=$work/findings/$target
    mkdir -p "$corpus" "$findings"
    seeds "$target" "$corpus"
    log=$work/$target.log
    # Standard error is the fuzzer's.
    if timeout $((seconds + 120)) "$work/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=4096 \
        -malloc_limit_mb=1024 -timeout=10 -max_len=65536 -artifact_prefix="$findings/" "$corpus" >"$log" 2>&1; then
        echo "$target: $(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\) second.*/\1 inputs in \2 s/p' "$log")," \
            "$(find "$corpus" -type f | wc -l) of them kept"
    else
        echo "$target: found something; $log and $findings" >&2
        tail -n 25 "$log" >&2
        status=1
    fi
done
exit "$status"
