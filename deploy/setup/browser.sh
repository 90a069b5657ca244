#!/usr/bin/env bash
# Installs what tests the dashboard: Chromium, Debian's package, with its own tools (needs root, 300 MB), and into
# .cache/browser playwright-core, which drives it, and axe-core, which finds what shuts people out (17 MB, by npm). None
# of them is needed by who uses Muster.
#
# Where they cannot be had, the tests that need them say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

recipe="playwright-core 1.65.1, axe-core 4.14.1, layout 1"
home=.cache/browser
stamp=$home/.ready
log=.cache/browser.log

skipped() {
    echo "      $1; the tests of the dashboard in a browser are skipped" >&2
    exit 0
}
have_driver() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
have_all() { command -v chromium >/dev/null && have_driver; }
if have_all; then
    exit 0
fi
mkdir -p .cache
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>.cache/browser.lock
flock -w 900 9 || { echo "error: another set-up holds .cache/browser.lock for a quarter of an hour" >&2; exit 1; }
if have_all; then
    exit 0
fi
if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    skipped "node and npm are not installed"
fi
if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        skipped "Chromium is not installed, and installing it needs root and apt-get"
    fi
    echo "      installing Chromium for the tests (300 MB, a minute; details in $log)"
    install() {
        export DEBIAN_FRONTEND=noninteractive
        # Lists of packages may be old, or not there at all.
        timeout --foreground 600 apt-get install -y --no-install-recommends chromium ||
            { timeout --foreground 300 apt-get update &&
                timeout --foreground 600 apt-get install -y --no-install-recommends chromium; }
    }
    if ! install >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        skipped "Chromium could not be installed (the whole log is in $log)"
    fi
fi
if ! have_driver; then
    echo "      installing playwright-core and axe-core for the tests (17 MB, seconds; details in $log)"
    rm -rf "$home"
    mkdir -p "$home"
    if ! (cd "$home" && echo '{"private": true}' >package.json &&
        timeout --foreground 300 npm install --no-fund --no-audit --ignore-scripts --save-exact \
            playwright-core@1.65.1 axe-core@4.14.1) >>"$log" 2>&1; then
        tail -n 5 "$log" >&2
        skipped "playwright-core and axe-core could not be installed (the whole log is in $log)"
    fi
    echo "$recipe" >"$stamp"
fi
