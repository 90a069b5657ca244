"""The part `search`: samplers on standard functions beside Optuna's, regret after equal trials, and speed."""
import json
import statistics
import subprocess

import scipy.stats

import muster
import peers

FUNCTIONS = ("branin", "hartmann6", "rosenbrock4", "fine_tuning")
PAIRS = (("random", "random", "random_vs_optuna_random"), ("tpe", "tpe", "tpe_vs_optuna_tpe"),
         ("tpe", "tpe_multivariate", "tpe_vs_optuna_tpe_multivariate"), ("gp", "gp", "gp_vs_optuna_gp"),
         ("cmaes", "cmaes", "cmaes_vs_optuna_cmaes"))
TRIALS, SEEDS, FINISHED = 100, 30, 1000
# Optuna's process takes a quarter of a second for a trial, and is good after fewer of them.
SIZES = {"gp": (50, 20)}


def rows(root, wanted, pairs):
    """Yields one row of the record after the other; seeds stand in for pairs."""
    del pairs
    for ours, theirs, name in PAIRS:
        for function in FUNCTIONS:
            row = f"{name}_{function}"
            if wanted(row):
                try:
                    yield compare(root, row, function, ours, theirs)
                except peers.Missing as missing:
                    yield {"name": row, "skipped": str(missing)}
    if wanted("tpe_suggestions_per_s"):
        try:
            yield speed(root)
        except peers.Missing as missing:
            yield {"name": "tpe_suggestions_per_s", "skipped": str(missing)}


def ours_on(root, sampler, function, *more):
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "muster-tests", "--example", "measure"]
    subprocess.run(build, cwd=root, check=True, timeout=1800)
    command = [root / "target/release/examples/measure", "search", "--sampler", sampler, "--function", function, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise muster.Failed(f"measure search: {done.stderr[-400:]}")
    return json.loads(done.stdout)


def theirs_on(root, sampler, function, *more):
    script = root / "tests/bench/optuna_search.py"
    return peers.run(root, script, "--sampler", sampler, "--function", function, *more)


def compare(root, name, function, ours, theirs):
    trials, seeds = SIZES.get(ours, (TRIALS, SEEDS))
    size = ("--trials", trials, "--seeds", seeds)
    mine = ours_on(root, ours, function, *size)["regrets"]
    other = theirs_on(root, theirs, function, *size)["regrets"]
    # One-sided: are our regrets larger?
    worse = scipy.stats.mannwhitneyu(mine, other, alternative="greater").pvalue
    better = scipy.stats.mannwhitneyu(mine, other, alternative="less").pvalue
    return {
        "name": name, "unit": "ratio", "better": "lower", "value": statistics.median(mine) / statistics.median(other),
        "ours": statistics.median(mine), "peer": {"name": f"optuna {theirs}", "value": statistics.median(other)},
        "failed": bool(worse < 0.05),
        "note": f"median regret after {trials} trials, {seeds} seeds each; p of being worse {worse:.3f}, "
                f"of being better {better:.3f}",
    }


def speed(root):
    size = ("--trials", 1, "--seeds", 1, "--finished", FINISHED)
    mine = ours_on(root, "tpe", "fine_tuning", *size)["proposals_per_second"]
    other = theirs_on(root, "tpe", "fine_tuning", *size)["proposals_per_second"]
    return {
        "name": "tpe_suggestions_per_s", "unit": "1/s", "better": "higher", "value": mine, "ours": mine,
        "peer": {"name": "optuna tpe, in memory", "value": other},
        "note": f"four hyperparameters, {FINISHED} finished trials",
    }
