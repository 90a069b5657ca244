"""The row `sweep_asha_vs_random`: what successive halving gains on a real sweep that costs as many steps without it.

MiniLM on SST-2 with the upper layer trained, five hyperparameters in wide ranges, drawn by seed. ASHA with pause and promotion
tries all points of a list; random search then trains as many of them, from the first on, as its steps suffice for, and one
more where they do not come out even. Each side's best trial is scored on a test split that decided nothing.
"""
import math
import pathlib
import random
import statistics
import tempfile

import pyarrow.parquet

import kept
import muster
import peers
import sizes

NAME = "sweep_asha_vs_random"
POINTS, RUNG, STEPS, FACTOR = sizes.size(27, 3), sizes.size(27, 2), sizes.size(243, 6), 3
NUM_TRAIN, NUM_TEST = 14_000, 2_000
LIMIT = 5400
MANIFEST = """version: 1
name: halving
seed: {seed}
model: {{pretrained: {model}, max_length: 64, freeze: {{embeddings: true, layers: 5}}}}
data:
  train: {{path: {train}}}
  validation: {{path: {validation}}}
  test: {{examples: {num_test}}}
  text: sentence
  label: {{column: label}}
searcher:
  metric: accuracy
  sampler: {{type: list, points: [{points}]}}
  pruner: {pruner}
budget: {{steps: {steps}}}
"""


def draw(seed):
    """The points of a seed, in the space of the recorded curves."""
    numbers = random.Random(seed)
    return [{
        "learning_rate": 10 ** numbers.uniform(-6, -2), "global_batch_size": numbers.choice([8, 16, 32]),
        "dropout": numbers.uniform(0, 0.5), "weight_decay": 1e-4 * 3000 ** numbers.random(),
        "warmup_ratio": numbers.uniform(0, 0.3),
    } for _ in range(POINTS)]


def train(root, seed, points, pruner):
    """Steps of all trials, and the accuracy of the best one on validation and test."""
    data = peers.shared(root, "data/sst2")
    flow = ", ".join("{" + ", ".join(f"{name}: {value!r}" for name, value in point.items()) + "}" for point in points)
    with tempfile.TemporaryDirectory(prefix="muster-halving-") as work:
        part = pathlib.Path(work) / "train.parquet"
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(data / "train.parquet").slice(0, NUM_TRAIN), part)
        text = MANIFEST.format(
            seed=seed, model=root / ".cache/demo/minilm", train=part, validation=data / "validation.parquet",
            num_test=NUM_TEST, points=flow, pruner=pruner, steps=STEPS,
        )
        run = muster.run(root, pathlib.Path(work), text, slots=2, threads=1, limit=LIMIT)
    best = run.summary["best"]
    return {"steps": sum(trial["steps"] for trial in run.summary["trials"]), "wall_s": run.wall_seconds,
            "validation": best["objective"], "test": best["test"]["accuracy"]}


def measure(root, seed, side, points, pruner):
    terms = {"points": points, "pruner": pruner, "steps": STEPS, "seed": seed, "build": kept.build(root)}
    return kept.result(root, "sweep", f"halving-{seed}-{side}", terms, lambda: train(root, seed, points, pruner))


def against_random(root, pairs):
    """`pairs` is the number of seeds; each draws its own points and cuts its own test split."""
    apart, tests, notes = [], [], []
    for seed in range(1, pairs + 1):
        points = draw(seed)
        asha = f"{{type: asha, reduction_factor: {FACTOR}, min_budget: {{steps: {RUNG}}}}}"
        mine = measure(root, seed, "asha", points, asha)
        other = measure(root, seed, "random", points[:math.ceil(mine["steps"] / STEPS)], "{type: none}")
        apart.append(mine["test"] - other["test"])
        tests.append((mine["test"], other["test"]))
        notes.append(f"{mine['steps']} and {other['steps']} steps")
        print(f"  {NAME}, seed {seed}: {notes[-1]}, test {mine['test']:.4f} and {other['test']:.4f}", flush=True)
    means = [statistics.mean(side) for side in zip(*tests)]
    share = statistics.mean(means)
    half_width = 1.96 * math.sqrt(2 * share * (1 - share) / (NUM_TEST * pairs))
    return {
        "name": NAME, "unit": "share", "better": "higher", "samples": apart, "ours": means[0],
        "peer": {"name": "random, every trial to the end", "value": means[1]},
        "failed": statistics.mean(apart) < -half_width,
        "note": f"accuracy of the best trial on {NUM_TEST} test sentences, {POINTS} trials under ASHA; {'; '.join(notes)}; "
                f"mean {statistics.mean(apart):+.4f}, 95 % interval +-{half_width:.4f}",
    }
