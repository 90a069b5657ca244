"""Ray Tune trains a list of trials: each for the steps that stand there, or stopped by Ray's own ASHA.

One trial is `sweep_common.finetune` of the peers' scripts, which has to be on PYTHONPATH; everything else is as Ray Tune
has it without settings.
"""
import os
import pathlib
import time

import common
import peer_sweep

arguments = peer_sweep.parser(__doc__).parse_args()
common.set_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

trials = peer_sweep.listed(arguments)
trials = [{**trial, "number": number} for number, trial in enumerate(trials)]
ray.init(num_cpus=arguments.slots, include_dashboard=False, log_to_driver=False, logging_level="error")


def train(config):
    import sweep_common

    trial = config["trial"]
    stops = sweep_common.rungs(arguments.rung, arguments.max, arguments.factor)
    for found in sweep_common.finetune(
        arguments.model, arguments.data, trial["lr"], trial["batch"], stops, seed=arguments.seed, freeze=arguments.freeze,
    ):
        tune.report({"step": found["step"], "accuracy": found["accuracy"]})
        if not arguments.asha and found["step"] >= trial["steps"]:
            return


scheduler = None
if arguments.asha:
    scheduler = ASHAScheduler(
        time_attr="step", grace_period=arguments.rung, max_t=arguments.max, reduction_factor=arguments.factor,
    )
# Grids are tried in their order.
tuner = tune.Tuner(
    tune.with_resources(train, {"cpu": 1}), param_space={"trial": tune.grid_search(trials)},
    run_config=tune.RunConfig(name=f"sweep-{time.time_ns()}", storage_path=str(pathlib.Path("results").absolute()), verbose=0),
    tune_config=tune.TuneConfig(metric="accuracy", mode="max", max_concurrent_trials=arguments.slots, scheduler=scheduler),
)
results = tuner.fit()
table = [{"number": result.config["trial"]["number"], "lr": result.config["trial"]["lr"],
          "batch": result.config["trial"]["batch"], "steps": result.metrics["step"], "accuracy": result.metrics["accuracy"]}
         for result in results if result.metrics and "step" in result.metrics]
peer_sweep.leave(arguments, sorted(table, key=lambda row: row["number"]))
