"""Writes the golden file beside it: shares of hyperparameters by Optuna's fANOVA evaluator.

    .cache/peers/bin/python tests/golden/optuna/importance.py

`importance.json` is a list of cases. `points` lie evenly within `bounds`, `values` are those of a known function there.
`shares` are the means, over ten seeds of Optuna's forest, of each hyperparameter's importance as a part of the sum of
all, and `deviations` how much they vary from seed to seed.
"""

import json
from pathlib import Path

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator

SEED = 11
NUM_FORESTS = 10


def ishigami(x):
    return np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])


def terms(x):
    return 3 * x[0] + 2 * x[1] + x[2]


def valley(x):
    """As losses of learning rates are: a valley, a cliff, and something that hardly matters."""
    return 0.3 * (x[0] + 3.5) ** 2 + (x[0] > -2.2) + 2 * x[1] + x[2]


def case(draws, name, function, bounds, num):
    low, high = np.array(bounds, dtype=float).T
    points = np.round(low + (high - low) * draws.random((num, len(bounds))), 6)
    values = np.round([float(function(point)) for point in points], 6)
    names = [f"x{index}" for index in range(len(bounds))]
    spaces = {name: optuna.distributions.FloatDistribution(*bound) for name, bound in zip(names, bounds)}
    study = optuna.create_study()
    for point, value in zip(points, values):
        study.add_trial(optuna.trial.create_trial(
            params=dict(zip(names, map(float, point))), distributions=spaces, value=float(value)))
    rows = []
    for seed in range(NUM_FORESTS):
        found = FanovaImportanceEvaluator(seed=seed).evaluate(study)
        rows.append(np.array([found[name] for name in names]) / sum(found.values()))
    return {"name": name, "bounds": bounds, "points": points.tolist(), "values": values.tolist(),
            "shares": np.mean(rows, axis=0).tolist(), "deviations": np.std(rows, axis=0).tolist()}


def main():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = np.random.default_rng(SEED)
    cases = [case(draws, "ishigami", ishigami, [[-np.pi, np.pi]] * 3, 150),
             case(draws, "terms", terms, [[0, 1]] * 4, 60),
             case(draws, "valley", valley, [[-5, -1], [0, 1], [0, 0.5]], 100)]
    text = {"made_by": f"optuna {optuna.__version__}, numpy {np.__version__}", "cases": cases}
    path = Path(__file__).parent / "importance.json"
    path.write_text(json.dumps(text, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")


main()
