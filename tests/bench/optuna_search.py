"""Optuna's samplers on the functions of search.rs, front.rs and fidelity.rs and on the curves of table.rs.

Leaves regret after each trial (or each whole budget of steps) as `traces`, of several objectives the volume after the last
trial, and proposals per second.
"""
import argparse
import json
import math
import pathlib
import time
import warnings

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna.trial import TrialState

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--sampler", choices=["random", "sobol", "tpe", "tpe_multivariate", "gp", "cmaes"], required=True)
parser.add_argument("--function", required=True, help="`table`: the recorded curves of --file")
parser.add_argument("--file", type=pathlib.Path, help="tests/bench/curves.json")
parser.add_argument("--trials", type=int, default=100)
parser.add_argument("--seeds", type=int, default=20)
parser.add_argument("--finished", type=int, default=0)
parser.add_argument("--out", required=True)
arguments = parser.parse_args()
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore")

HARTMANN_A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
              [17, 8, 0.05, 10, 0.1, 14]]
HARTMANN_P = [[0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886], [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
              [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650], [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381]]


def branin(trial):
    x, y = trial.suggest_float("x0", -5, 10), trial.suggest_float("x1", 0, 15)
    bend = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return bend * bend + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.397887


def peaks(x, heights):
    return sum(height * math.exp(-sum(a * (v - p) ** 2 for a, p, v in zip(row_a, row_p, x)))
               for height, row_a, row_p in zip(heights, HARTMANN_A, HARTMANN_P))


def hartmann6(trial):
    return 3.32237 - peaks([trial.suggest_float(f"x{d}", 0, 1) for d in range(6)], (1.0, 1.2, 3.0, 3.2))


def rosenbrock4(trial):
    x = [trial.suggest_float(f"x{d}", -2, 2) for d in range(4)]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(x, x[1:]))


def fine_tuning(trial):
    batch = trial.suggest_categorical("batch", [8, 16, 32, 64])
    dropout, layers = trial.suggest_float("dropout", 0, 0.5), trial.suggest_int("layers", 0, 11)
    off = math.log10(trial.suggest_float("rate", 1e-6, 1e-2, log=True)) + 4.5 - 0.15 * math.log2(batch / 16)
    wall = 2 * (off - 1) if off > 1 else 0
    return (0.2 * off * off + wall + 0.02 * abs(math.log2(batch / 32)) + 0.8 * (dropout - 0.12) ** 2
            + 0.004 * (layers - 3) ** 2)


def zdt1(trial):
    x = [trial.suggest_float(f"x{d}", 0, 1) for d in range(5)]
    g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    return x[0], g * (1 - math.sqrt(x[0] / g))


def dtlz2(trial):
    x = [trial.suggest_float(f"x{d}", 0, 1) for d in range(5)]
    g = sum((v - 0.5) ** 2 for v in x[2:])
    a, b = x[0] * math.pi / 2, x[1] * math.pi / 2
    return tuple((1 + g) * v for v in (math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)))


def binh_korn(trial):
    x, y = 5 * trial.suggest_float("x0", 0, 1), 3 * trial.suggest_float("x1", 0, 1)
    bounds = ((x - 5) ** 2 + y * y - 25, 7.7 - (x - 8) ** 2 - (y + 3) ** 2)
    trial.set_user_attr("bounds", bounds)
    return 4 * (x * x + y * y), (x - 5) ** 2 + (y - 5) ** 2


def branin_fidelity(trial):
    x, y = 15 * trial.suggest_float("x0", 0, 1) - 5, 15 * trial.suggest_float("x1", 0, 1)

    def value(fidelity):
        bend = y - (5.1 / (4 * math.pi**2) - 0.1 * (1 - fidelity)) * x * x + 5 / math.pi * x - 6
        return bend * bend + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.397887
    return value


def hartmann6_fidelity(trial):
    x = [trial.suggest_float(f"x{d}", 0, 1) for d in range(6)]
    return lambda fidelity: 3.32237 - peaks(x, (1.0 - 0.1 * (1 - fidelity), 1.2, 3.0, 3.2))


FUNCTIONS = {function.__name__: function for function in (branin, hartmann6, rosenbrock4, fine_tuning)}
# Of several objectives, with the point where their volume ends.
FRONTS = {"zdt1": (zdt1, (1.1, 7.0)), "dtlz2": (dtlz2, (1.1, 1.1, 1.1)), "binh_korn": (binh_korn, (140.0, 50.0))}
# Of a fidelity, 0 to 1, besides; the steps at which it is looked at, under Hyperband.
FIDELITY = {function.__name__: function for function in (branin_fidelity, hartmann6_fidelity)}
RUNGS, FACTOR = (27, 81, 243), 3


def sampler(seed):
    if arguments.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if arguments.sampler == "sobol":
        return optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
    if arguments.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if arguments.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed)
    more = {"constraints_func": lambda trial: trial.user_attrs["bounds"]} if arguments.function == "binh_korn" else {}
    return optuna.samplers.TPESampler(seed=seed, multivariate=arguments.sampler == "tpe_multivariate", **more)


def volume(seed):
    function, reference = FRONTS[arguments.function]
    study = optuna.create_study(directions=["minimize"] * len(reference), sampler=sampler(seed))
    study.optimize(function, n_trials=arguments.trials)
    kept = [trial.values for trial in study.trials if all(b <= 0 for b in trial.user_attrs.get("bounds", ()))
            and all(value < end for value, end in zip(trial.values, reference))]
    return float(compute_hypervolume(np.array(kept), np.array(reference))) if kept else 0.0


def on_function(seed):
    study = optuna.create_study(sampler=sampler(seed))
    study.optimize(FUNCTIONS[arguments.function], n_trials=arguments.trials)
    return np.minimum.accumulate([trial.value for trial in study.trials]).tolist()


def on_fidelity(seed):
    """Regret of whole trials after each `RUNGS[-1]` steps of all trials; null before there is one."""
    pruner = optuna.pruners.HyperbandPruner(min_resource=RUNGS[0], max_resource=RUNGS[-1], reduction_factor=FACTOR)
    study = optuna.create_study(sampler=sampler(seed), pruner=pruner)
    trace, spent, best = [], 0, None

    def objective(trial):
        nonlocal spent, best
        value = FIDELITY[arguments.function](trial)
        for before, step in zip((0, *RUNGS), RUNGS):
            spent += step - before
            while (len(trace) + 1) * RUNGS[-1] < spent:
                trace.append(best)
            if len(trace) >= arguments.trials:
                study.stop()
                raise optuna.TrialPruned
            found = value(step / RUNGS[-1])
            trial.report(found, step)
            if step == RUNGS[-1]:
                best = found if best is None else min(best, found)
            elif trial.should_prune():
                raise optuna.TrialPruned
        return found

    study.optimize(objective)
    return trace[:arguments.trials]


def on_table(seed):
    """As table.rs does it: of the recorded points that were not tried the one nearest to a proposal is tried."""
    listed = json.loads(arguments.file.read_text(encoding="utf-8"))
    points = [{name: int(value) if name == "global_batch_size" else value for name, value in trial["hyperparameters"].items()}
              for trial in listed["trials"]]
    # One that diverged is worth nothing where it has no score.
    length = listed["steps"] // listed["every_steps"]
    scores = [trial["accuracy"][-1] if len(trial["accuracy"]) == length else 0.0 for trial in listed["trials"]]
    floats = optuna.distributions.FloatDistribution
    space = {"learning_rate": floats(1e-6, 1e-2, log=True), "dropout": floats(0, 0.5),
             "weight_decay": floats(1e-4, 0.3, log=True), "warmup_ratio": floats(0, 0.3),
             "global_batch_size": optuna.distributions.CategoricalDistribution([8, 16, 32])}

    def side(name, a, b):
        if name == "global_batch_size":
            return math.log2(a / b) / 2
        low, high = space[name].low, space[name].high
        return math.log(a / b) / math.log(high / low) if space[name].log else (a - b) / (high - low)

    study = optuna.create_study(sampler=sampler(seed), direction="maximize")
    tried, trace = [], []
    for _ in range(arguments.trials):
        proposal = study.ask(space)

        def far(index):
            return sum(side(name, proposal.params[name], points[index][name]) ** 2 for name in space)

        nearest = min((index for index in range(len(points)) if index not in tried), key=far)
        tried.append(nearest)
        # What is learned from is the point that was tried, not the proposal.
        study.tell(proposal, state=TrialState.FAIL)
        study.add_trial(optuna.trial.create_trial(params=points[nearest], distributions=space, value=scores[nearest]))
        trace.append(max(scores) - max(scores[index] for index in tried))
    return trace


def proposals_per_second():
    function = FUNCTIONS[arguments.function]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(function, n_trials=arguments.finished)
    study.sampler = sampler(0)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 2.0:
        trial = study.ask()
        function(trial)
        count += 1
    return count / (time.perf_counter() - begun)


if arguments.function in FRONTS:
    result = {"volumes": [volume(seed) for seed in range(arguments.seeds)]}
else:
    search = on_table if arguments.function == "table" else on_fidelity if arguments.function in FIDELITY else on_function
    result = {"traces": [search(seed) for seed in range(arguments.seeds)]}
if arguments.finished:
    result["proposals_per_second"] = proposals_per_second()
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump(result, file)
