"""The part `sweep`: the same sweep of real trials in Muster and in the tools that people use for it.

MiniLM on SST-2, eight trials, successive halving that stops (rungs at 32, 64 and 128 steps, factor 2), two slots of
one thread, scored on all 872 validation sentences. The peer runs first and draws the hyperparameters; Muster then tries
the same ones, so both sides train the same trials. Who is stopped depends on accuracies, and so does the number of steps:
the walls are compared per training example. Half an hour for each seed, hence only when it is asked for.
"""
import pathlib
import statistics
import tempfile

import muster
import peers

TRIALS, RUNG, STEPS, FACTOR = 8, 32, 128, 2
MANIFEST = """version: 1
name: sweep
seed: {seed}
model:
  pretrained: {model}
  max_length: 128
  {freeze}
data:
  train: {{path: {data}/train.parquet}}
  validation: {{path: {data}/validation.parquet}}
  text: sentence
  label: {{column: label}}
hyperparameters:
  weight_decay: 0.01
  warmup_ratio: 0.1
searcher:
  metric: accuracy
  sampler: {{type: list, points: [{points}]}}
  pruner: {{type: asha_stopping, reduction_factor: {factor}, min_budget: {{steps: {rung}}}}}
budget: {{steps: {steps}}}
"""


def rows(root, wanted, pairs):
    """Yields one row of the record after the other; `pairs` is the number of seeds."""
    measures = {
        "sweep_vs_ray": ("Ray Tune", ray, None),
        "sweep_vs_optuna": ("Optuna", optuna, None),
        "sweep_frozen_vs_ray": ("Ray Tune", ray, 3),
    }
    for name, (peer, run_peer, frozen) in measures.items():
        if not wanted(name):
            continue
        try:
            yield compare(root, name, peer, run_peer, frozen, pairs)
        except peers.Missing as missing:
            yield {"name": name, "skipped": str(missing)}
        except muster.Failed as failed:
            yield {"name": name, "skipped": f"failed: {failed}", "failed": True}


def ray(root, data, model, frozen, seed):
    return peers.run(root, "ray_tune.py", "sweep", *common(data, model, frozen, seed), "--concurrent", 2)


def optuna(root, data, model, frozen, seed):
    return peers.run(root, "optuna_asha.py", "sweep", *common(data, model, frozen, seed), "--procs", 2, "--storage", "journal")


def common(data, model, frozen, seed):
    return ["--trials", TRIALS, "--model", model, "--data", data, "--rung", RUNG, "--max", STEPS, "--factor", FACTOR,
            "--freeze", frozen or 0, "--seed", seed]


def compare(root, name, peer, run_peer, frozen, pairs):
    data, model = peers.shared(root, "data/sst2"), root / ".cache/demo/minilm"
    ratios, ours, theirs, best, notes = [], [], [], [], []
    for seed in range(1, pairs + 1):
        found = run_peer(root, data, model, frozen, seed)
        # The whole of it: from the start of the program to its end.
        wall = found["total_wall_s"]
        examples = sum(trial["steps"] * trial["batch"] for trial in found["table"])
        with tempfile.TemporaryDirectory(prefix="muster-sweep-") as work:
            run = muster.run(root, pathlib.Path(work), manifest(model, data, frozen, seed, found["table"]), slots=2, threads=1)
        mine = sum(trial["steps"] * trial["hyperparameters"]["global_batch_size"] for trial in run.summary["trials"])
        ours.append(mine / run.wall_seconds)
        theirs.append(examples / wall)
        ratios.append(ours[-1] / theirs[-1])
        best.append((run.summary["best"]["objective"], found["best_accuracy"]))
        steps = sum(trial["steps"] for trial in run.summary["trials"])
        notes.append(f"{run.wall_seconds:.0f} s for {steps} steps against {wall:.0f} s for {found['total_steps']}")
        print(f"  {name}, seed {seed}: {notes[-1]}, best {best[-1][0]:.4f} and {best[-1][1]:.4f}", flush=True)
    means = [statistics.mean(side) for side in zip(*best)]
    return {
        "name": name, "unit": "ratio", "better": "higher", "samples": ratios, "ours": statistics.median(ours),
        "peer": {"name": peer, "value": statistics.median(theirs)},
        "note": f"training examples per second of wall, caches filled within; {'; '.join(notes)}; mean of the best accuracies "
                f"{means[0]:.4f} and {means[1]:.4f}",
    }


def manifest(model, data, frozen, seed, table):
    points = ", ".join(
        f"{{learning_rate: {trial['lr']!r}, global_batch_size: {trial['batch']}}}" for trial in table
    )
    freeze = f"freeze: {{embeddings: true, layers: {frozen}}}" if frozen else ""
    return MANIFEST.format(
        seed=seed, model=model, data=data, freeze=freeze, points=points, factor=FACTOR, rung=RUNG, steps=STEPS,
    )
