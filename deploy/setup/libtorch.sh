#!/usr/bin/env bash
# Installs the libtorch that the worker is built against into .cache/libtorch, once.
#
# The Python wheel of torch holds libtorch. Without its Python dependencies and with two small CUDA
# libraries that libtorch_cpu.so is linked to, it takes 1.3 GB and about a minute. `import torch` does
# not work in this environment; nothing here needs it.
#
# .cache/libtorch/venv   the wheel; binaries load libtorch from here
# .cache/libtorch/farm   include/ and lib/ as the linker wants them; never loaded at run time
set -euo pipefail
cd "$(dirname "$0")/../.."

torch=2.11.0
toolkit=13.0.2
recipe="torch $torch, cuda-toolkit $toolkit, layout 1"
home=.cache/libtorch
stamp=$home/.ready
log=$home/setup.log

# A libtorch of the user's own wins, when it is the version that the bindings are made for.
if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$PWD/$home/farm" ]; then
    found=$(cat "$LIBTORCH/build-version" "$LIBTORCH/version.py" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true)
    if [ ! -e "$LIBTORCH/lib/libtorch_cpu.so" ] || [ ! -d "$LIBTORCH/include" ]; then
        echo "error: LIBTORCH=$LIBTORCH has no lib/libtorch_cpu.so or no include/; unset LIBTORCH to have it installed" >&2
        exit 1
    elif [ -n "$found" ] && [ "$found" != "$torch" ]; then
        echo "error: LIBTORCH=$LIBTORCH is version $found, Muster needs $torch; unset LIBTORCH to have it installed" >&2
        exit 1
    fi
    echo "      using LIBTORCH=$LIBTORCH"
    exit 0
fi

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
    exit 0
fi
mkdir -p "$home"
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>"$home/.lock"
flock -w 1800 9 || { echo "error: another set-up holds $home/.lock for half an hour" >&2; exit 1; }
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
    exit 0
fi

free_kib=$(df -Pk "$home" | awk 'NR==2 {print $4}')
if [ "$free_kib" -lt 4000000 ]; then
    echo "error: libtorch needs 4 GB of free disk in $PWD/$home, $((free_kib / 1000000)) GB are left" >&2
    exit 1
fi

echo "      installing libtorch $torch (1.3 GB, about a minute; details in $log)"
rm -rf "$home/venv" "$home/farm" "$stamp"
: >"$log"
attempt() {
    python3 -m venv "$home/venv" &&
        timeout --foreground 1700 "$home/venv/bin/pip" install --no-deps --no-cache-dir "torch==$torch" &&
        timeout --foreground 600 "$home/venv/bin/pip" install --no-cache-dir "cuda-toolkit[cudart,cupti]==$toolkit"
}
if ! (set -e; attempt) >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: libtorch could not be installed. Is the Python package index reachable (a proxy set in" >&2
    echo "       PIP_INDEX_URL or pip.conf is used)? The whole log is in $log; run the command again to retry." >&2
    exit 1
fi

torch_home=$(cd "$home"/venv/lib/python3*/site-packages/torch && pwd)
mkdir -p "$home/farm/lib"
ln -s "$torch_home/include" "$home/farm/include"
for library in libtorch_cpu.so libc10.so; do
    ln -s "$torch_home/lib/$library" "$home/farm/lib/$library"
done
# torch-sys always links -ltorch; the real libtorch.so would drag in every CUDA library.
echo 'INPUT(-ltorch_cpu)' >"$home/farm/lib/libtorch.so"
echo "$recipe" >"$stamp"
