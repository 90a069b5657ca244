"""Reads what `muster export` wrote, with the readers of TensorBoard and MLflow.

usage: exports.py EVENTS MLRUNS

Prints one JSON object: `tensorboard`, by directory and tag the list of [step, value], and `mlflow`, by experiment name a
list of runs with name, status, parameters, tags and, by name, [step, value, timestamp].
"""

import json
import os
import sys
from pathlib import Path

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(directory):
    found = {}
    for file in sorted(Path(directory).glob("*/*/*tfevents*")):
        reader = EventAccumulator(str(file), size_guidance={"scalars": 0})
        reader.Reload()
        tags = reader.Tags()["scalars"]
        run = str(file.parent.relative_to(directory))
        found[run] = {tag: [[event.step, event.value] for event in reader.Scalars(tag)] for tag in tags}
    return found


def runs(directory):
    client = MlflowClient(tracking_uri=Path(directory).resolve().as_uri())
    found = {}
    for experiment in client.search_experiments():
        listed = client.search_runs([experiment.experiment_id])
        found[experiment.name] = [
            {
                "name": run.info.run_name,
                "status": run.info.status,
                "params": run.data.params,
                "tags": run.data.tags,
                "metrics": {
                    name: [[m.step, m.value, m.timestamp] for m in client.get_metric_history(run.info.run_id, name)]
                    for name in run.data.metrics
                },
            }
            for run in listed
        ]
    return found


def main():
    tensorboard, mlflow = sys.argv[1:]
    print(json.dumps({"tensorboard": events(tensorboard), "mlflow": runs(mlflow)}))


if __name__ == "__main__":
    main()
