"""The part `sweep`: the same sweep of real trials in Muster and in the tools that people use for it.

MiniLM on SST-2, eight trials, successive halving that stops (rungs at 32, 64 and 128 steps, factor 2), two slots of
one thread, scored on all 872 validation sentences. Whom a tool stops depends on accuracies, and so does the number of
steps. Hence two kinds of rows: in one Muster goes first, and the peer then trains the same trials for as many steps each,
so that the walls and the accuracies of single trials can be compared; in the other each side decides by itself.

Minutes for each seed and side, hence only when it is asked for. What was measured is kept in `target/bench/sweep`, one file
for each side and seed: a row that was interrupted goes on, another build of Muster is measured anew. Remove the folder to
measure the peers anew too.
"""
import json
import math
import pathlib
import random
import statistics
import tempfile

import scipy.stats

import halving
import kept
import muster
import peers
import sizes

TRIALS = sizes.size(8, 2)
RUNG, STEPS, FACTOR = sizes.size(32, 2), sizes.size(128, 4), 2
# Seconds for one sweep; beside other work it takes much longer than alone.
LIMIT = 5400
# Name of a peer, its script, how many of the lowest layers are frozen, and by how much we are to be faster.
EQUAL = {
    "sweep_vs_ray": ("Ray Tune", "ray_sweep.py", 0, 1.8),
    "sweep_vs_optuna": ("Optuna", "optuna_sweep.py", 0, 1.3),
    "sweep_frozen_vs_ray": ("Ray Tune", "ray_sweep.py", 3, 3.0),
}
ASHA = {
    "sweep_asha_vs_ray": ("Ray Tune", "ray_sweep.py", 0),
    "sweep_asha_vs_optuna": ("Optuna", "optuna_sweep.py", 0),
    "sweep_asha_frozen_vs_ray": ("Ray Tune", "ray_sweep.py", 3),
}
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
    measures = {name: lambda name=name: equal(root, name, *EQUAL[name], pairs) for name in EQUAL}
    measures |= {name: lambda name=name: asha(root, name, *ASHA[name], pairs) for name in ASHA}
    measures[halving.NAME] = lambda: halving.against_random(root, pairs)
    for name, measure in measures.items():
        if not wanted(name):
            continue
        try:
            yield measure()
        except peers.Missing as missing:
            yield {"name": name, "skipped": str(missing)}
        except muster.Failed as failed:
            yield {"name": name, "skipped": f"failed: {failed}", "failed": True}


class Sweep:
    """One seed: its hyperparameters, and what each side makes of them."""

    def __init__(self, root, script, frozen, seed):
        self.root, self.script, self.frozen, self.seed = root, script, frozen, seed
        self.data, self.model = peers.shared(root, "data/sst2"), root / ".cache/demo/minilm"
        self.peers = peers.scripts(root)
        draw = random.Random(seed)
        self.trials = [{"lr": 10 ** draw.uniform(-5, -4), "batch": draw.choice([16, 32])} for _ in range(TRIALS)]

    def kept(self, side, trials, measure, **more):
        """Wall time and trials (hyperparameters, steps, accuracy at the last one) of a side."""
        terms = {"trials": trials, "rung": RUNG, "steps": STEPS, "factor": FACTOR, "frozen": self.frozen,
                 "seed": self.seed, **more}
        # Ours stands beside each peer's: they are measured one after the other.
        name = f"{self.script.removesuffix('_sweep.py')}-{self.frozen}-{self.seed}-{side}"
        return kept.result(self.root, "sweep", name, terms, measure)

    def ours(self):
        return self.kept("muster", self.trials, self.run_muster, build=kept.build(self.root))

    def theirs(self, trials):
        """The peer with the steps that stand in `trials`; by its own ASHA, where none do."""
        by_asha = "steps" not in trials[0]
        return self.kept("asha" if by_asha else "equal", trials, lambda: self.run_peer(trials, by_asha))

    def run_muster(self):
        points = ", ".join(f"{{learning_rate: {trial['lr']!r}, global_batch_size: {trial['batch']}}}" for trial in self.trials)
        text = MANIFEST.format(
            seed=self.seed, model=self.model, data=self.data, points=points, factor=FACTOR, rung=RUNG, steps=STEPS,
            freeze=f"freeze: {{embeddings: true, layers: {self.frozen}}}" if self.frozen else "",
        )
        with tempfile.TemporaryDirectory(prefix="muster-sweep-") as work:
            run = muster.run(self.root, pathlib.Path(work), text, slots=2, threads=1, limit=LIMIT)
            table = []
            for trial in run.summary["trials"]:
                number = int(trial["id"].rsplit("t", 1)[1])
                scores = {step: value for step, value, _ in run.metric(number, "validation_accuracy")}
                table.append({"lr": trial["hyperparameters"]["learning_rate"], "steps": trial["steps"],
                              "batch": trial["hyperparameters"]["global_batch_size"], "accuracy": scores[trial["steps"]]})
        return {"wall_s": run.wall_seconds, "trials": table}

    def run_peer(self, trials, by_asha):
        with tempfile.TemporaryDirectory(prefix="muster-sweep-") as work:
            listed = pathlib.Path(work) / "trials.json"
            listed.write_text(json.dumps(trials), encoding="utf-8")
            found = peers.run(
                self.root, self.root / "tests/bench" / self.script, "--trials", listed, "--model", self.model, "--data",
                self.data, "--rung", RUNG, "--max", STEPS, "--factor", FACTOR, "--freeze", self.frozen, "--seed", self.seed,
                *(["--asha"] if by_asha else []), limit=LIMIT, uses=[self.peers],
            )
        if len(found["trials"]) != len(trials):
            raise peers.Missing(f"{self.script} finished {len(found['trials'])} of {len(trials)} trials")
        return found


def num_steps(found):
    return sum(trial["steps"] for trial in found["trials"])


def best(found):
    return max(trial["accuracy"] for trial in found["trials"])


def equal(root, name, peer, script, frozen, goal, pairs):
    """The peer trains Muster's trials for as many steps: wall times, and accuracies trial by trial."""
    ours, theirs, notes, apart, bests = [], [], [], [], []
    for seed in range(1, pairs + 1):
        sweep = Sweep(root, script, frozen, seed)
        mine = sweep.ours()
        other = sweep.theirs([{name: trial[name] for name in ("lr", "batch", "steps")} for trial in mine["trials"]])
        if [trial["steps"] for trial in other["trials"]] != [trial["steps"] for trial in mine["trials"]]:
            raise muster.Failed(f"{peer} did not train as many steps: {other['trials']}")
        ours.append(mine["wall_s"])
        theirs.append(other["wall_s"])
        apart += [a["accuracy"] - b["accuracy"] for a, b in zip(mine["trials"], other["trials"])]
        bests.append((best(mine), best(other)))
        notes.append(f"{num_steps(mine)} steps in {ours[-1]:.0f} and {theirs[-1]:.0f} s")
        print(f"  {name}, seed {seed}: {notes[-1]}, best {bests[-1][0]:.4f} and {bests[-1][1]:.4f}", flush=True)
    mean, half_width = interval(apart)
    means = [statistics.mean(side) for side in zip(*bests)]
    return {
        "name": name, "unit": "ratio", "better": "higher", "samples": [b / a for a, b in zip(ours, theirs)],
        "ours": statistics.median(ours), "peer": {"name": peer, "value": statistics.median(theirs)}, "goal": goal,
        "failed": mean < -half_width,
        "accuracy": {"apart": apart, "mean": mean, "half_width": half_width, "best": bests},
        "note": f"wall time of the same trials for the same steps, caches filled within, the goal is {goal}; "
                f"{'; '.join(notes)}; accuracy of a trial's last evaluation {mean:+.4f} over the peer's, 95 % interval "
                f"+-{half_width:.4f} of {len(apart)} trials; mean of the best {means[0]:.4f} and {means[1]:.4f}",
    }


def interval(samples):
    """Mean of paired differences and half the width of its 95 % interval (Student's t)."""
    spread = statistics.stdev(samples) / math.sqrt(len(samples))
    return statistics.mean(samples), float(scipy.stats.t.ppf(0.975, len(samples) - 1)) * spread


def asha(root, name, peer, script, frozen, pairs):
    """Each side stops the same trials by its own successive halving: examples per second, and the best accuracy."""
    ours, theirs, notes, bests = [], [], [], []
    for seed in range(1, pairs + 1):
        sweep = Sweep(root, script, frozen, seed)
        mine, other = sweep.ours(), sweep.theirs(sweep.trials)
        for side, found in ((ours, mine), (theirs, other)):
            side.append(sum(trial["steps"] * trial["batch"] for trial in found["trials"]) / found["wall_s"])
        bests.append((best(mine), best(other)))
        notes.append(" against ".join(f"{num_steps(found)} steps in {found['wall_s']:.0f} s" for found in (mine, other)))
        print(f"  {name}, seed {seed}: {notes[-1]}, best {bests[-1][0]:.4f} and {bests[-1][1]:.4f}", flush=True)
    means = [statistics.mean(side) for side in zip(*bests)]
    # Of one difference of two shares of the 872 sentences; the mean over seeds, on the same ones, varies less.
    share = statistics.mean(means)
    half_width = 1.96 * math.sqrt(2 * share * (1 - share) / 872)
    return {
        "name": name, "unit": "ratio", "better": "higher", "samples": [a / b for a, b in zip(ours, theirs)],
        "ours": statistics.median(ours), "peer": {"name": peer, "value": statistics.median(theirs)},
        "failed": means[0] - means[1] < -half_width,
        "note": f"training examples per second of wall, caches filled within; {'; '.join(notes)}; mean of the best accuracies "
                f"{means[0]:.4f} and {means[1]:.4f}, 95 % interval of one difference +-{half_width:.3f}",
    }
