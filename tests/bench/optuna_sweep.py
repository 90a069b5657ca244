"""Optuna trains a list of trials: each for the steps that stand there, or stopped by Optuna's own successive halving.

Processes of one thread share a journal in a file. One trial is `sweep_common.finetune` of the peers' scripts, which has to be
on PYTHONPATH.
"""
import subprocess
import sys

import common
import peer_sweep

parser = peer_sweep.parser(__doc__)
parser.add_argument("--journal", help="given to the processes that this one starts")
arguments = parser.parse_args()
common.set_threads(1)

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)
trials = peer_sweep.listed(arguments)


def open_study(journal):
    pruner = optuna.pruners.NopPruner()
    if arguments.asha:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=arguments.rung, reduction_factor=arguments.factor)
    return optuna.create_study(
        study_name="sweep", storage=JournalStorage(JournalFileBackend(journal)), pruner=pruner, direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=arguments.seed), load_if_exists=True,
    )


def train(trial):
    import sweep_common

    if trial.number >= len(trials):  # all that were listed are taken
        trial.study.stop()
        raise optuna.TrialPruned
    rate = trial.suggest_float("lr", 1e-5, 1e-4, log=True)
    batch = trial.suggest_categorical("batch", [16, 32])
    stops = sweep_common.rungs(arguments.rung, arguments.max, arguments.factor)
    for found in sweep_common.finetune(
        arguments.model, arguments.data, rate, batch, stops, seed=arguments.seed, freeze=arguments.freeze,
    ):
        trial.report(found["accuracy"], found["step"])
        trial.set_user_attr("steps", found["step"])
        trial.set_user_attr("accuracy", found["accuracy"])
        if not arguments.asha and found["step"] >= trials[trial.number]["steps"]:
            break
        if trial.should_prune():
            raise optuna.TrialPruned
    return found["accuracy"]


if arguments.journal:
    study = open_study(arguments.journal)
    while any(trial.state == TrialState.WAITING for trial in study.trials):
        study.optimize(train, n_trials=1)
    sys.exit(0)
study = open_study("./journal")
for trial in trials:
    study.enqueue_trial({"lr": trial["lr"], "batch": trial["batch"]})
command = [sys.executable, __file__, *sys.argv[1:], "--journal", "./journal"]
children = [subprocess.Popen(command) for _ in range(arguments.slots)]
if any([child.wait() for child in children]):
    sys.exit("a process of the study failed")
table = [{"number": trial.number, "lr": trial.params["lr"], "batch": trial.params["batch"],
          "steps": trial.user_attrs["steps"], "accuracy": trial.user_attrs["accuracy"]}
         for trial in study.trials if trial.number < len(trials)]
peer_sweep.leave(arguments, table)
