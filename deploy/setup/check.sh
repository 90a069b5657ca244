#!/usr/bin/env bash
# Says which of the tools that Muster is built with are missing, all at once, and how to get each on Debian.
# Prints nothing and exits 0 when none is.
set -uo pipefail

rust_min=1.90
missing=0
miss() {
    missing=1
    printf 'missing: %s\n         %s\n' "$1" "$2" >&2
}
# Whether version $1 is at least version $2, both as MAJOR.MINOR.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

command -v make >/dev/null || miss "make" "apt-get install make"
command -v g++ >/dev/null || miss "a C++ compiler (g++)" "apt-get install g++"
if ! command -v python3 >/dev/null; then
    miss "Python 3 with venv" "apt-get install python3 python3-venv"
elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    miss "Python 3.10 or newer (this is $(python3 -V 2>&1))" "apt-get install python3 python3-venv"
elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    miss "Python's venv module" "apt-get install python3-venv"
fi
if ! command -v cargo >/dev/null; then
    miss "Rust $rust_min or newer (cargo)" "curl --proto =https -sSf https://sh.rustup.rs | sh -s -- -y   (Debian 13 and newer: apt-get install rustup)"
else
    found=$(cd "$(dirname "$0")/../.." && cargo --version 2>/dev/null | awk '{print $2}')
    if [ -z "$found" ]; then
        miss "a working cargo (\`cargo --version\` fails)" "rustup default stable"
    elif ! at_least "$found" "$rust_min"; then
        miss "Rust $rust_min or newer (cargo is $found)" "rustup update stable"
    fi
fi
command -v flock >/dev/null || miss "flock" "apt-get install util-linux"
exit "$missing"
