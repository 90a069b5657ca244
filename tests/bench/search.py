"""The part `search`: samplers on standard functions and on recorded curves beside Optuna's, regret by trials, and speed."""
import functools
import json
import math
import statistics
import subprocess

import scipy.stats

import muster
import peers
import sizes

FUNCTIONS = ("branin", "hartmann6", "rosenbrock4", "fine_tuning")
PAIRS = (("random", "random", "random_vs_optuna_random"), ("sobol", "sobol", "sobol_vs_optuna_sobol"),
         ("tpe", "tpe", "tpe_vs_optuna_tpe"), ("tpe_univariate", "tpe", "tpe_univariate_vs_optuna_tpe"),
         ("tpe", "tpe_multivariate", "tpe_vs_optuna_tpe_multivariate"), ("gp", "gp", "gp_vs_optuna_gp"),
         ("cmaes", "cmaes", "cmaes_vs_optuna_cmaes"))
TRIALS, SEEDS, FINISHED = sizes.size(100, 10), sizes.size(30, 3), sizes.size(1000, 20)
# Trials after which the regret is told; the last one of a row decides.
AFTER = (10, 20, 50, 100)
# Of several objectives; the last one has constraints too.
FRONTS = ("zdt1", "dtlz2", "binh_korn")
# With results of trials that are trained for a part of their budget.
FIDELITIES = ("branin", "hartmann6")
BUDGETS, BUDGET_SEEDS = sizes.size(50, 10), sizes.size(20, 3)
# On the table of recorded curves, and how many trials and seeds there are beside Optuna; it has 48 points.
TABLE_TRIALS, TABLE_SEEDS, TABLE_BELOW = sizes.size(12, 3), sizes.size(200, 3), 0.02
TABLE_PAIRS = {"random": sizes.size((40, 100), (10, 2)), "tpe": sizes.size((40, 100), (10, 2)),
               "gp": sizes.size((40, 20), (20, 2))}
TABLE_AFTER = (10, 20, 30, 40)
# Optuna's process takes a quarter of a second for a trial, and is good after fewer of them.
SIZES = {"gp": sizes.size((50, 20), (20, 2))}


def rows(root, wanted, pairs):
    """Yields one row of the record after the other; seeds stand in for pairs."""
    del pairs
    for name, measure_row in measures(root).items():
        if not wanted(name):
            continue
        try:
            yield measure_row(name)
        except peers.Missing as missing:
            yield {"name": name, "skipped": str(missing)}
        except muster.Failed as failed:
            yield {"name": name, "skipped": f"failed: {failed}", "failed": True}


def measures(root):
    """What measures each row, by its name."""
    found = {}
    for ours, theirs, name in PAIRS:
        for function in FUNCTIONS:
            found[f"{name}_{function}"] = functools.partial(compare, root, function=function, ours=ours, theirs=theirs)
    for theirs in ("tpe", "tpe_multivariate"):
        for function in FRONTS:
            name = f"tpe_vs_optuna_{theirs}_front_{function}"
            found[name] = functools.partial(on_front, root, function=function, theirs=theirs)
    for function in FIDELITIES:
        for peer, theirs in (("optuna_tpe", "tpe"), ("random", None)):
            name = f"bohb_vs_{peer}_hyperband_{function}"
            found[name] = functools.partial(on_fidelity, root, function=function, theirs=theirs)
    for sampler in ("sobol", "tpe", "gp", "cmaes"):
        found[f"table_{sampler}_vs_random"] = functools.partial(on_table, root, sampler=sampler)
    for sampler in TABLE_PAIRS:
        found[f"table_{sampler}_vs_optuna_{sampler}"] = functools.partial(table_beside_optuna, root, sampler=sampler)
    for pruner in ("asha", "asha_stopping", "hyperband", "median"):
        found[f"{pruner}_vs_random_compute"] = functools.partial(compute, root, pruner=pruner)
    found["tpe_suggestions_per_s"] = functools.partial(speed, root)
    return found


@functools.cache
def build(root):
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "measure"]
    subprocess.run(command, cwd=root, check=True, timeout=1800)


def measure(root, *arguments):
    build(root)
    command = [root / "target/release/examples/measure", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise muster.Failed(f"measure {arguments[0]}: {done.stderr[-400:]}")
    return json.loads(done.stdout)


# Several rows look at the same searches, which depend on their seeds alone.
@functools.cache
def ours_on(root, sampler, function, *more):
    return measure(root, "search", "--sampler", sampler, "--function", function, *more)


@functools.cache
def theirs_on(root, sampler, function, *more):
    script = root / "tests/bench/optuna_search.py"
    return peers.run(root, script, "--sampler", sampler, "--function", function, *more, limit=3600)


def curves(root):
    return "--file", root / "tests/bench/curves.json"


def p_values(mine, other):
    """One-sided: of our regrets being larger, and of their being smaller."""
    test = scipy.stats.mannwhitneyu
    return test(mine, other, alternative="greater").pvalue, test(mine, other, alternative="less").pvalue


def by_trials(mine, other, after, middle):
    """Regrets of both sides after so many trials as `middle` sees them over the seeds, and p of ours being larger.

    A side is one list per seed: its regret after each trial, nothing before there is a result.
    """
    found = []
    for count in after:
        if count > len(mine[0]):
            break
        ours, theirs = ([math.inf if trace[count - 1] is None else trace[count - 1] for trace in side]
                        for side in (mine, other))
        worse, better = p_values(ours, theirs)
        found.append({"after": count, "ours": finite(middle(ours)), "theirs": finite(middle(theirs)),
                      "p_worse": float(worse), "p_better": float(better)})
    return found


def finite(value):
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


def told(regrets):
    """Regrets by trials, for the note of a row."""
    shown = lambda value: "none" if value is None else f"{value:.3g}"
    return "; ".join(f"{row['after']}: {shown(row['ours'])} and {shown(row['theirs'])}, p {row['p_worse']:.3f}"
                     for row in regrets)


def beside(name, mine, other, peer, what):
    """A row of median regrets; the ones after the last trial that is told decide."""
    regrets = by_trials(mine, other, AFTER, statistics.median)
    last = regrets[-1]
    if last["ours"] is None or not last["theirs"]:
        raise muster.Failed(f"no regret of {peer} to compare with after {last['after']} trials")
    return {
        "name": name, "unit": "ratio", "better": "lower", "value": last["ours"] / last["theirs"],
        "ours": last["ours"], "peer": {"name": peer, "value": last["theirs"]},
        "failed": last["p_worse"] < 0.05, "regret": regrets,
        "note": f"median regret {what}, {len(mine)} seeds each; p of being worse {last['p_worse']:.3f}, of being better "
                f"{last['p_better']:.3f}; by number, ours and theirs, p of being worse: {told(regrets)}",
    }


def compare(root, name, function, ours, theirs):
    trials, seeds = SIZES.get(ours, (TRIALS, SEEDS))
    size = ("--trials", trials, "--seeds", seeds)
    mine, other = ours_on(root, ours, function, *size)["traces"], theirs_on(root, theirs, function, *size)["traces"]
    return beside(name, mine, other, f"optuna {theirs}", f"after {trials} trials")


def on_fidelity(root, name, function, theirs):
    """BOHB beside Optuna's TPE under Hyperband, or beside our random search under Hyperband, for the same steps."""
    size = ("--function", f"{function}_fidelity", "--trials", BUDGETS, "--seeds", BUDGET_SEEDS)
    mine = measure(root, "fidelity", "--sampler", "bohb", *size)["traces"]
    if theirs is None:
        other, peer = measure(root, "fidelity", "--sampler", "random", *size)["traces"], "muster random, hyperband"
    else:
        other, peer = theirs_on(root, theirs, *size[1:])["traces"], f"optuna {theirs}, hyperband"
    return beside(name, mine, other, peer, f"after the steps of {BUDGETS} whole trials, in brackets on both sides")


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
    size = (*curves(root), "--trials", TABLE_TRIALS, "--seeds", TABLE_SEEDS)
    mine, other = ([trace[-1] for trace in measure(root, "table", "--sampler", side, *size)["traces"]]
                   for side in (sampler, "random"))
    worse, better = p_values(mine, other)
    return {
        "name": name, "unit": "accuracy", "better": "lower", "value": statistics.mean(mine), "ours": statistics.mean(mine),
        "peer": {"name": "muster random", "value": statistics.mean(other)}, "failed": bool(worse < 0.05),
        "note": f"mean regret on recorded curves after {TABLE_TRIALS} trials, {TABLE_SEEDS} seeds; p of being worse "
                f"{worse:.3f}, of being better {better:.3f}",
    }


def table_beside_optuna(root, name, sampler):
    """Regret on the recorded curves, against Optuna's sampler of the kind on the same table."""
    trials, seeds = TABLE_PAIRS[sampler]
    size = (*curves(root), "--trials", trials, "--seeds", seeds)
    mine = measure(root, "table", "--sampler", sampler, *size)["traces"]
    other = theirs_on(root, sampler, "table", *size)["traces"]
    regrets = by_trials(mine, other, TABLE_AFTER, statistics.mean)
    # Over all trials of a seed: in the end nearly every search has come upon the best of 48 points.
    ours, theirs = ([statistics.mean(trace) for trace in side] for side in (mine, other))
    worse, better = p_values(ours, theirs)
    return {
        "name": name, "unit": "accuracy", "better": "lower", "value": statistics.mean(ours), "ours": statistics.mean(ours),
        "peer": {"name": f"optuna {sampler}", "value": statistics.mean(theirs)}, "failed": bool(worse < 0.05),
        "regret": regrets,
        "note": f"regret on recorded curves, mean of those after 1 to {trials} trials, {seeds} seeds each; p of being worse "
                f"{worse:.3f}, of being better {better:.3f}; by number, ours and theirs, p of being worse: {told(regrets)}",
    }


def compute(root, name, pruner):
    """Steps until a result is as near to the best of the recorded curves as the validation split can tell."""
    size = (*curves(root), "--seeds", TABLE_SEEDS, "--below", TABLE_BELOW)
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


def speed(root, name):
    size = ("--trials", 1, "--seeds", 1, "--finished", FINISHED)
    mine = ours_on(root, "tpe", "fine_tuning", *size)["proposals_per_second"]
    other = theirs_on(root, "tpe", "fine_tuning", *size)["proposals_per_second"]
    return {
        "name": name, "unit": "1/s", "better": "higher", "value": mine, "ours": mine,
        "peer": {"name": "optuna tpe, in memory", "value": other},
        "note": f"four hyperparameters, {FINISHED} finished trials",
    }
