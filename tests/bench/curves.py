"""Records a table of real learning curves: a sweep in which every trial trains to the end and is scored often.

usage: curves.py [--root CHECKOUT] [--trials 48] [--out tests/bench/curves.json]

The lower layers are frozen and computed once, so that a sweep of full trials takes minutes on two cores. The table
is small and committed; `measure table` (tests/bench/table.rs) replays searches on it.
"""
import argparse
import datetime
import json
import pathlib
import subprocess
import tempfile

import pyarrow.parquet

import muster
import peers

STEPS, EVERY, NUM_TRAIN = 243, 27, 12_000
MANIFEST = """version: 1
name: curves
seed: 1
model: {{pretrained: {model}, max_length: 64, freeze: {{embeddings: true, layers: 5}}}}
data:
  train: {{path: {train}}}
  validation: {{path: {validation}}}
  text: sentence
  label: {{column: label}}
hyperparameters:
  learning_rate: {{min: 1e-6, max: 1e-2, scale: log}}
  global_batch_size: {{values: [8, 16, 32]}}
  dropout: {{min: 0, max: 0.5}}
  weight_decay: {{min: 1e-4, max: 0.3, scale: log}}
  warmup_ratio: {{min: 0, max: 0.3}}
searcher: {{metric: accuracy, sampler: sobol, max_trials: {trials}}}
budget: {{steps: {steps}}}
training: {{evaluate_every: {{steps: {every}}}}}
checkpoint: {{keep_last: 1}}
"""


def main():
    here = pathlib.Path(__file__).resolve()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=here.parents[2], help="where target/release is")
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--out", type=pathlib.Path, default=here.parent / "curves.json")
    arguments = parser.parse_args()
    checkout = here.parents[2]
    data = peers.shared(checkout, "data/sst2")
    with tempfile.TemporaryDirectory() as work:
        part = pathlib.Path(work) / "train.parquet"
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(data / "train.parquet").slice(0, NUM_TRAIN), part)
        text = MANIFEST.format(model=checkout / ".cache/demo/minilm", train=part, trials=arguments.trials,
                               validation=data / "validation.parquet", steps=STEPS, every=EVERY)
        run = muster.run(arguments.root, pathlib.Path(work), text, slots=2, threads=1, limit=3600)
        trials = []
        for trial in run.summary["trials"]:
            number = int(trial["id"].rsplit("t", 1)[1])
            scores = {step: value for step, value, _ in run.metric(number, "validation_accuracy")}
            curve = [round(scores[step], 4) for step in range(EVERY, STEPS + 1, EVERY) if step in scores]
            trials.append({"hyperparameters": trial["hyperparameters"], "accuracy": curve})
        version = subprocess.run([arguments.root / "target/release/muster", "--version"], capture_output=True, text=True,
                                 check=True).stdout.strip()
        table = {"what": "MiniLM on SST-2, upper layer and head trained, accuracy on the 872 validation sentences",
                 "command": f"tests/bench/curves.py --trials {arguments.trials}", "build": version,
                 "date": datetime.date.today().isoformat(), "wall_seconds": round(run.wall_seconds),
                 "every_steps": EVERY, "steps": STEPS, "trials": trials}
    lines = ",\n".join("  " + json.dumps(trial) for trial in table.pop("trials"))
    head = json.dumps(table, indent=1)[:-2]
    arguments.out.write_text(f'{head},\n "trials": [\n{lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
