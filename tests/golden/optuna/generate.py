"""Writes the golden file beside it: what Optuna says about fronts, volumes and choices from them.

    .cache/peers/bin/python tests/golden/optuna/generate.py

`fronts.json` is a list of cases. `costs` (smaller is better) and `violations` are drawn with a fixed seed, some from a
coarse lattice, so that there are ties; `ranks` is Optuna's constrained non-domination rank of each, from 0. `volume` is
the hypervolume of all costs up to `reference`, `front_volumes` that of the first front with each of its members (`front`)
left out. `chosen` are the members of the first front, by index into `front`, that Optuna's greedy subset selection takes,
in its order; only where no two volumes are equal, since the order of equals is a matter of taste.
"""

import json
from pathlib import Path

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna._hypervolume.hssp import _solve_hssp
from optuna.study._multi_objective import _fast_non_domination_rank

SEED = 7


def case(draws, num_objectives, num, is_coarse):
    costs = draws.random((num, num_objectives))
    if num_objectives > 1:
        # Near a sphere, so that the first front has many members.
        costs = costs / np.linalg.norm(costs, axis=1, keepdims=True) * (1 + 0.3 * draws.random((num, 1)))
    if is_coarse:
        costs = np.round(costs * 5) / 5
    violations = np.where(draws.random(num) < 0.3, np.round(draws.random(num) * 4) / 4, 0.0)
    reference = np.full(num_objectives, 1.5)
    ranks = _fast_non_domination_rank(costs, penalty=violations)
    front = np.flatnonzero(_fast_non_domination_rank(costs) == 0)
    without = [compute_hypervolume(np.delete(costs[front], i, axis=0), reference) if len(front) > 1 else 0.0
               for i in range(len(front))]
    found = {"costs": costs.tolist(), "violations": violations.tolist(), "reference": reference.tolist(),
             "ranks": ranks.tolist(), "volume": float(compute_hypervolume(costs, reference)), "front": front.tolist(),
             "front_volumes": [float(volume) for volume in without]}
    if not is_coarse and num_objectives > 1:
        size = max(1, len(front) // 2)
        picked = _solve_hssp(costs[front], np.arange(len(front)), size, reference)
        found["chosen"] = picked.tolist()
    return found


def main():
    draws = np.random.default_rng(SEED)
    cases = [case(draws, num_objectives, num, is_coarse) for num_objectives in (1, 2, 3, 4)
             for num in (1, 6, 24) for is_coarse in (False, True)]
    text = {"made_by": f"optuna {optuna.__version__}, numpy {np.__version__}", "cases": cases}
    path = Path(__file__).parent / "fronts.json"
    path.write_text(json.dumps(text, separators=(",", ":")).replace('{"costs"', '\n{"costs"') + "\n", encoding="utf-8")


main()
