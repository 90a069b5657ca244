#!/usr/bin/env bash
# Makes echarts.js anew from the published packages, which are checked, by the entry file beside this script.
# Needs npm and its registry; nobody who builds Muster does. Same versions give the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

versions=(echarts@6.1.0 zrender@6.1.0 tslib@2.3.0 esbuild@0.28.2)
echarts_sha256=681aff88cc1038c3fa941a3a53d1b177a52250b05335efc607d6105ae13be481
zrender_sha256=38f2fb722a638be016ca0175b139c40c886ef47fc2afdb741b2e7e7ae9683f9c

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
timeout 300 npm pack --silent echarts@6.1.0 zrender@6.1.0 >/dev/null
sha256sum --check --quiet <<SUMS
$echarts_sha256  echarts-6.1.0.tgz
$zrender_sha256  zrender-6.1.0.tgz
SUMS
timeout 300 npm init --yes >/dev/null
timeout 300 npm install --silent --no-fund --no-audit --save-exact "${versions[@]}"
cp "$here/echarts.entry.js" entry.js
npx esbuild entry.js --bundle --format=esm --minify --legal-comments=none --target=es2020 \
    --define:process.env.NODE_ENV='"production"' --log-level=warning --outfile=echarts.js
cp echarts.js "$here/echarts.js"
cp node_modules/echarts/LICENSE "$here/LICENSE-echarts"
cp node_modules/echarts/NOTICE "$here/NOTICE-echarts"
cp node_modules/zrender/LICENSE "$here/LICENSE-zrender"
cp node_modules/echarts/licenses/LICENSE-d3 "$here/LICENSE-d3"
sha256sum "$here/echarts.js"
