"""Writes a study of finished trials for Optuna's dashboard: as many, and as large, as the ones that ours shows."""
import argparse
import random

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--trials", type=int, required=True)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw = random.Random(1)
    space = {"learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
             "global_batch_size": CategoricalDistribution([8, 16, 32])}
    study = optuna.create_study(storage=arguments.storage, study_name="simulated", direction="maximize")
    trials = []
    for number in range(arguments.trials):
        value = (10 + number % 37) / 50
        # Most stop at the first rung, as in our experiment.
        rungs = [60, 240, 960][:1 + (number % 4 == 0) + (number % 16 == 0)]
        trials.append(create_trial(
            state=TrialState.COMPLETE if len(rungs) == 3 else TrialState.PRUNED, value=value,
            params={"learning_rate": 1e-5 * 100 ** draw.random(), "global_batch_size": draw.choice([8, 16, 32])},
            distributions=space, intermediate_values={step: value for step in rungs},
        ))
    study.add_trials(trials)


if __name__ == "__main__":
    main()
