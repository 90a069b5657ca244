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
# Of several objectives; the last one has constraints too.
FRONTS = ("zdt1", "dtlz2", "binh_korn")
# On the table of recorded curves.
TABLE_TRIALS, TABLE_SEEDS, TABLE_BELOW = 12, 200, 0.02
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
    for theirs in ("tpe", "tpe_multivariate"):
        for function in FRONTS:
            row = f"tpe_vs_optuna_{theirs}_front_{function}"
            if wanted(row):
                try:
                    yield on_front(root, row, function, theirs)
                except peers.Missing as missing:
                    yield {"name": row, "skipped": str(missing)}
    for sampler in ("sobol", "tpe", "gp", "cmaes"):
        row = f"table_{sampler}_vs_random"
        if wanted(row):
            yield on_table(root, row, sampler)
    for pruner in ("asha", "asha_stopping", "hyperband", "median"):
        row = f"{pruner}_vs_random_compute"
        if wanted(row):
            yield compute(root, row, pruner)
    if wanted("tpe_suggestions_per_s"):
        try:
            yield speed(root)
        except peers.Missing as missing:
            yield {"name": "tpe_suggestions_per_s", "skipped": str(missing)}


def ours_on(root, sampler, function, *more):
    return measure(root, "search", "--sampler", sampler, "--function", function, *more)


def measure(root, *arguments):
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "measure"]
    subprocess.run(build, cwd=root, check=True, timeout=1800)
    command = [root / "target/release/examples/measure", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise muster.Failed(f"measure {arguments[0]}: {done.stderr[-400:]}")
    return json.loads(done.stdout)


def theirs_on(root, sampler, function, *more):
    script = root / "tests/bench/optuna_search.py"
    return peers.run(root, script, "--sampler", sampler, "--function", function, *more)


def p_values(mine, other):
    """One-sided: of our regrets being larger, and of their being smaller."""
    test = scipy.stats.mannwhitneyu
    return test(mine, other, alternative="greater").pvalue, test(mine, other, alternative="less").pvalue


def compare(root, name, function, ours, theirs):
    trials, seeds = SIZES.get(ours, (TRIALS, SEEDS))
    size = ("--trials", trials, "--seeds", seeds)
    mine = ours_on(root, ours, function, *size)["regrets"]
    other = theirs_on(root, theirs, function, *size)["regrets"]
    worse, better = p_values(mine, other)
    return {
        "name": name, "unit": "ratio", "better": "lower", "value": statistics.median(mine) / statistics.median(other),
        "ours": statistics.median(mine), "peer": {"name": f"optuna {theirs}", "value": statistics.median(other)},
        "failed": bool(worse < 0.05),
        "note": f"median regret after {trials} trials, {seeds} seeds each; p of being worse {worse:.3f}, "
                f"of being better {better:.3f}",
    }


def on_front(root, name, function, theirs):
    """Volume that the front covers, up to a fixed point."""
    size = ("--trials", TRIALS, "--seeds", SEEDS)
    mine = measure(root, "front", "--sampler", "tpe", "--function", function, *size)["volumes"]
    other = theirs_on(root, theirs, function, *size)["volumes"]
    better, worse = p_values(mine, other)
    return {
        "name": name, "unit": "ratio", "better": "higher", "value": statistics.median(mine) / statistics.median(other),
        "ours": statistics.median(mine), "peer": {"name": f"optuna {theirs}", "value": statistics.median(other)},
        "failed": bool(worse < 0.05),
        "note": f"median volume after {TRIALS} trials, {SEEDS} seeds each; p of being worse {worse:.3f}, "
                f"of being better {better:.3f}",
    }


def on_table(root, name, sampler):
    """Regret on the recorded curves, against random draws from the same table."""
    size = ("--file", root / "tests/bench/curves.json", "--trials", TABLE_TRIALS, "--seeds", TABLE_SEEDS)
    mine = measure(root, "table", "--sampler", sampler, *size)["regrets"]
    other = measure(root, "table", "--sampler", "random", *size)["regrets"]
    worse, better = p_values(mine, other)
    return {
        "name": name, "unit": "accuracy", "better": "lower", "value": statistics.mean(mine), "ours": statistics.mean(mine),
        "peer": {"name": "muster random", "value": statistics.mean(other)}, "failed": bool(worse < 0.05),
        "note": f"mean regret on recorded curves after {TABLE_TRIALS} trials, {TABLE_SEEDS} seeds; p of being worse "
                f"{worse:.3f}, of being better {better:.3f}",
    }


def compute(root, name, pruner):
    """Steps until a result is as near to the best of the recorded curves as the validation split can tell."""
    size = ("--file", root / "tests/bench/curves.json", "--seeds", TABLE_SEEDS, "--below", TABLE_BELOW)
    mine = measure(root, "table", "--pruner", pruner, *size)["steps"]
    other = measure(root, "table", "--pruner", "none", *size)["steps"]
    worse = scipy.stats.wilcoxon(mine, other, alternative="greater").pvalue
    return {
        "name": name, "unit": "ratio", "better": "higher", "value": statistics.mean(other) / statistics.mean(mine),
        "ours": statistics.mean(mine), "peer": {"name": "every trial to the end", "value": statistics.mean(other)},
        "failed": bool(worse < 0.05),
        "note": f"mean steps of all trials until an accuracy within {TABLE_BELOW} of the table's best, "
                f"{TABLE_SEEDS} orders of its trials; p of needing more {worse:.3g}",
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
