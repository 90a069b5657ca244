"""Optuna's samplers on the functions of search.rs and front.rs: regret or volume after so many trials, proposals per second."""
import argparse
import json
import math
import time
import warnings

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--sampler", choices=["random", "tpe", "tpe_multivariate", "gp", "cmaes"], required=True)
parser.add_argument("--function", required=True)
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


def hartmann6(trial):
    x = [trial.suggest_float(f"x{d}", 0, 1) for d in range(6)]
    peaks = (height * math.exp(-sum(a * (v - p) ** 2 for a, p, v in zip(row_a, row_p, x)))
             for height, row_a, row_p in zip((1.0, 1.2, 3.0, 3.2), HARTMANN_A, HARTMANN_P))
    return 3.32237 - sum(peaks)


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


FUNCTIONS = {function.__name__: function for function in (branin, hartmann6, rosenbrock4, fine_tuning)}
# Of several objectives, with the point where their volume ends.
FRONTS = {"zdt1": (zdt1, (1.1, 7.0)), "dtlz2": (dtlz2, (1.1, 1.1, 1.1)), "binh_korn": (binh_korn, (140.0, 50.0))}


def sampler(seed):
    if arguments.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
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


if arguments.function in FRONTS:
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({"volumes": [volume(seed) for seed in range(arguments.seeds)]}, file)
    raise SystemExit

function = FUNCTIONS[arguments.function]
regrets = []
for seed in range(arguments.seeds):
    study = optuna.create_study(sampler=sampler(seed))
    study.optimize(function, n_trials=arguments.trials)
    regrets.append(study.best_value)
result = {"regrets": regrets}
if arguments.finished:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(function, n_trials=arguments.finished)
    study.sampler = sampler(0)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 2.0:
        trial = study.ask()
        function(trial)
        count += 1
    result["proposals_per_second"] = count / (time.perf_counter() - begun)
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump(result, file)
