#!/usr/bin/env bash
# `make planted`: breaks one rule of the engine after the other, in a copy of the sources, and sees whether the
# simulation finds it. A patch in planted/ is one broken rule; its first line says which. The copy builds the
# workspace's own crates once (minutes); every rule then takes as long as building the engine. When all are found, the
# table of CONTRIBUTING.md is written anew: the first seed that fails, which is the same every time, and what it says.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/setup/libtorch.sh
seeds=${SEEDS:-1000}
patches=$PWD/tests/simulation/planted
document=$PWD/CONTRIBUTING.md
table=$PWD/target/planted/table.md
tree=$PWD/target/planted/tree
export CARGO_TARGET_DIR=$PWD/target/planted/target

rm -rf "$tree"
mkdir -p "$tree" "$CARGO_TARGET_DIR"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$tree"
ln -s "$PWD/.cache" "$tree/.cache"
# What other crates are built to is the same here.
if [ -d target/release ] && [ ! -d "$CARGO_TARGET_DIR/release" ]; then
    cp -a --reflink=auto target/release "$CARGO_TARGET_DIR/release"
fi
# The copy lies inside a repository, where `git apply` would take paths from its root and pass over all of these.
export GIT_CEILING_DIRECTORIES=$PWD/target/planted
cd "$tree"

simulate() {
    MUSTER_SEEDS=$seeds timeout 1800 cargo test --release --locked -p muster-tests --test simulation >"$1" 2>&1
}

echo "the engine as it is, $seeds seeds"
if ! simulate ../whole.log; then
    tail -n 20 ../whole.log >&2
    echo "error: the simulation fails without any rule broken" >&2
    exit 1
fi
missed=0
printf '| a rule that is broken | seed | what the simulation says |\n|---|---|---|\n' >"$table"
for patch in "$patches"/*.patch; do
    name=$(basename "$patch" .patch)
    git apply "$patch"
    if simulate "../$name.log"; then
        found="NOT FOUND"
        missed=$((missed + 1))
    elif grep -q '^error' "../$name.log" && ! grep -q 'test result: FAILED' "../$name.log"; then
        echo "error: $name does not build; the output is in target/planted/$name.log" >&2
        exit 1
    else
        # The panic that ends the test: `seed 17 fails: what; MUSTER_SEED=17 runs it alone`.
        line=$(sed -nE 's/^(seed [0-9]+ fails: .*); MUSTER_SEED=.*/\1/p' "../$name.log" | head -n 1)
        found=${line:-found, but not by a seed: $(grep -A1 -m1 'panicked at' "../$name.log" | tail -n 1)}
        seed=$(sed -nE 's/^seed ([0-9]+) fails: .*/\1/p' <<<"$line")
        cause=$(sed -E 's/^seed [0-9]+ fails: //; s/^called `Result::unwrap\(\)` on an `Err` value: //
            s/^assertion .* failed: //; s/\|/\\|/g' <<<"${line:-$found}")
        printf '| %s | %s | %s |\n' "$(head -n 1 "$patch")" "${seed:-none}" "$cause" >>"$table"
    fi
    printf '%-36s %s\n    %s\n' "$name" "$(head -n 1 "$patch")" "$found"
    git apply -R "$patch"
done
[ "$missed" -eq 0 ] || { echo "error: $missed broken rules were not found" >&2; exit 1; }
sed -i -e '/^<!-- planted -->$/,/^<!-- end of planted -->$/{/^<!-- /!d}' -e "/^<!-- planted -->$/r $table" "$document"
