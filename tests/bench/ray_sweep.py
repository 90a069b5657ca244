"""Ray Tune trains a list of trials: each for the steps that stand there, or stopped by Ray's own ASHA.

One trial is `sweep_common.finetune` of the peers' scripts, which has to be on PYTHONPATH; everything else is as Ray Tune
has it without settings.
"""
import argparse
import json
import os
import pathlib
import time

import common

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--trials", type=pathlib.Path, required=True, help="JSON: a list of {lr, batch, steps}")
parser.add_argument("--asha", action="store_true", help="stop them by ASHA, whatever their steps are")
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True, help="folder with train.parquet and validation.parquet")
parser.add_argument("--rung", type=int, required=True, help="steps to the first rung")
parser.add_argument("--max", type=int, required=True, help="steps that the learning rate is planned for")
parser.add_argument("--factor", type=int, required=True)
parser.add_argument("--freeze", type=int, required=True, help="embeddings and so many layers; 0: nothing")
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--slots", type=int, default=2, help="trials at a time, one thread each")
parser.add_argument("--out", type=pathlib.Path, required=True)
arguments = parser.parse_args()
common.set_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

trials = json.loads(arguments.trials.read_text(encoding="utf-8"))
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
found = {"wall_s": common.since_start(), "trials": sorted(table, key=lambda row: row["number"])}
arguments.out.write_text(json.dumps(found), encoding="utf-8")
