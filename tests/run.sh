#!/usr/bin/env bash
# `make test` (run.sh all): set-up, build with lints, tests. `make check` (run.sh check): set-up and lints.
#
# Every phase has a time budget. The last line of `all` is "N passed, N failed, N skipped", summed over all
# test programs. A test that cannot run here prints "MUSTER-SKIP name: reason" and counts as skipped, as does
# an ignored one. With CI=true only the reasons in MUSTER_ALLOWED_SKIPS pass: a skipped test must not look
# like a green one.
set -euo pipefail
cd "$(dirname "$0")/.."
self=$PWD/tests/run.sh

mode=${1:-all}
# Where nobody measures, the tests themselves need not be fast: `.ci/run` says so, in the words of `cargo --config`.
read -ra cargo_config <<<"${MUSTER_CARGO_CONFIG:+--config $MUSTER_CARGO_CONFIG}"
allowed_skips=${MUSTER_ALLOWED_SKIPS:-gpu parity root slurm kubernetes linters browser}
log=target/test.log
mkdir -p target

# Runs a phase in a shell of its own under a time budget, and says how long it took.
phase() {
    local name=$1 budget_seconds=$2 start=$SECONDS status=0
    echo "[$name] at most $budget_seconds s"
    # In the background, for `timeout` leads a process group of its own that Ctrl-C does not reach.
    timeout --kill-after=30 "$budget_seconds" bash "$self" "phase-$name" &
    local child=$!
    trap 'kill -TERM "$child" 2>/dev/null; wait "$child"; exit 130' INT TERM
    wait "$child" || status=$?
    trap - INT TERM
    echo "[$name] $((SECONDS - start)) s"
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        echo "error: $name did not end within its $budget_seconds s" >&2
    fi
    return "$status"
}

set_up() {
    deploy/setup/check.sh
    deploy/setup/libtorch.sh
    deploy/setup/cargo_deny.sh
    # cargo-deny looks at the dependencies of every platform; a build fetches those of this one only.
    timeout --foreground 600 cargo fetch --locked --quiet
}

# What the tests need besides the programs: it comes from the network, and no build waits for it.
tools() {
    deploy/setup/demo_inputs.sh
    deploy/setup/python_readers.sh
    deploy/setup/s3_server.sh
    deploy/setup/slurm.sh
    deploy/setup/linters.sh
    deploy/setup/kubernetes.sh
    deploy/setup/browser.sh
}

lints() {
    echo "      format"
    cargo fmt --all --check
    echo "      lints"
    cargo clippy "${cargo_config[@]}" --release --workspace --all-targets --locked --quiet -- -D warnings
    echo "      licences and sources of the dependencies"
    .cache/cargo-deny/bin/cargo-deny --log-level warn --offline --locked check bans licenses sources
}

# Programs and tests in one go: what only tests depend on changes features of other crates, so that building the
# programs by themselves first would compile nearly all of them twice.
build() {
    deploy/setup/build.sh target/build.log "${cargo_config[@]}" --workspace --all-targets
}

# Shows one line per test program while they run; everything goes to the log.
tests() {
    cargo test "${cargo_config[@]}" --release --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log" |
        awk '/^ +(Running|Doc-tests) / || /^test result:/ || /^test .* FAILED$/ || /^error: (could not compile|test failed)/ { print; fflush() }'
}

# Prints the skips and the totals; fails when a skip is not allowed in CI.
totals() {
    local skips refused=0
    skips=$(
        {
            sed -nE 's/^.*MUSTER-SKIP ([^ ]+): (.*)$/\1: \2/p' "$log"
            sed -nE 's/^test (.+) \.\.\. ignored(, (.*))?$/\1: \3/p' "$log"
        } | sort -u
    )
    if [ -n "$skips" ]; then
        echo "skipped:"
        while IFS= read -r line; do
            echo "  $line"
            local reason=${line#*: } allowed=0 prefix
            for prefix in $allowed_skips; do
                case $reason in "$prefix"*) allowed=1 ;; esac
            done
            [ "$allowed" -eq 1 ] || refused=$((refused + 1))
        done <<<"$skips"
    fi
    if [ "${CI:-}" = true ] && [ "$refused" -gt 0 ]; then
        echo "error: $refused skipped for a reason that CI does not accept (accepted: $allowed_skips)" >&2
    else
        refused=0
    fi
    # A test that skips itself is "ok" for the test program: count it once, as skipped.
    awk -v skipped_ok="$(sed -nE 's/^.*MUSTER-SKIP ([^ ]+): .*$/\1/p' "$log" | sort -u | grep -c . || true)" '
        /^test result:/ {
            for (i = 1; i <= NF; i++) {
                if ($i ~ /^passed/) passed += $(i - 1)
                if ($i ~ /^failed/) failed += $(i - 1)
                if ($i ~ /^ignored/) ignored += $(i - 1)
            }
        }
        END { printf "%d passed, %d failed, %d skipped\n", passed - skipped_ok, failed, ignored + skipped_ok }' "$log"
    [ "$refused" -eq 0 ]
}

case $mode in
phase-set-up) set_up ;;
phase-tools) tools ;;
phase-build)
    # Not joined with &&: bash forgets `set -e` inside a function that stands in a condition.
    build
    lints
    ;;
phase-lints) lints ;;
phase-tests) tests ;;
check)
    phase set-up 1200
    phase lints 2400
    ;;
all)
    phase set-up 1200
    timeout --kill-after=30 1800 bash "$self" phase-tools >target/tools.log 2>&1 &
    tools=$!
    trap 'kill "$tools" 2>/dev/null || true' EXIT
    phase build 3000
    if ! wait "$tools"; then
        cat target/tools.log >&2
        echo "error: what the tests need could not be set up" >&2
        exit 1
    fi
    trap - EXIT
    rm -f "$log"
    touch "$log"
    status=0
    phase tests 2700 || status=$?
    if [ "$status" -ne 0 ]; then
        # What the failing tests printed; the log has the rest.
        awk '/^failures:$/ {show = 1} /^test result:/ {show = 0} show' "$log" | head -n 200
        echo "error: the tests failed; the whole output is in $log" >&2
    fi
    totals || status=1
    exit "$status"
    ;;
*)
    echo "usage: tests/run.sh [all|check]" >&2
    exit 2
    ;;
esac
