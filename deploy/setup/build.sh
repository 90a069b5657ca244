#!/usr/bin/env bash
# Builds the release binaries; usage: build.sh LOG [FLAGS OF CARGO BUILD]. Cargo's output goes to LOG and is shown when it fails.
# A first build compiles some 380 crates, so a line says from time to time how far it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

log=${1:?usage: build.sh LOG [FLAGS]}
shift
mkdir -p "$(dirname "$log")"
[ -t 1 ] && terminal=1 || terminal=0
# Only for the display: whatever is wrong here, the build itself says it better.
crates=$({ cargo tree --workspace --locked --edges normal,build --prefix none 2>/dev/null || true; } |
    awk '{print $1}' | sort -u | wc -l)

# A pipe hides the exit code of its first command unless pipefail is set, which it is above.
if ! cargo build --release --locked "$@" 2>&1 | tee "$log" |
    awk -v crates="$crates" -v terminal="$terminal" '
        /^ +Compiling / {
            done++
            if (terminal) printf "\r      compiled %d of about %d crates", done, crates
            else if (done % 50 == 0) printf "      compiled %d of about %d crates\n", done, crates
            fflush()
        }
        END { if (terminal && done) printf "\n" }'; then
    tail -n 40 "$log" >&2
    echo "error: the build failed; the whole output is in $log" >&2
    exit 1
fi
