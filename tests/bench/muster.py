"""Runs Muster as a user would and reads what it left: metrics, log, summary, peak memory."""
import json
import os
import pathlib
import re
import subprocess
import threading
import time
from datetime import datetime, timezone

import pyarrow.parquet


class Failed(Exception):
    """The program did not end well; the message holds the end of its output."""


class Memory(threading.Thread):
    """Peak resident set, MiB, of a process and all its descendants, each at its own peak."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peaks, self.ended = pid, {}, threading.Event()

    def family(self):
        found, index = [self.pid], 0
        while index < len(found):
            for task in pathlib.Path(f"/proc/{found[index]}/task").glob("*/children"):
                try:
                    found += [int(pid) for pid in task.read_text().split()]
                except OSError:
                    pass
            index += 1
        return found

    def run(self):
        while not self.ended.wait(0.1):
            for pid in self.family():
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                except OSError:
                    continue
                peak = re.search(r"VmHWM:\s+(\d+)", status)
                if peak:
                    self.peaks[pid] = max(self.peaks.get(pid, 0), int(peak.group(1)) / 1024)

    def stop(self):
        self.ended.set()
        self.join()
        return sum(self.peaks.values())


class Run:
    """A finished `muster run` and where it left things."""

    def __init__(self, directory, started_at, wall_seconds, peak_mib):
        self.directory, self.started_at = directory, started_at
        self.wall_seconds, self.peak_mib = wall_seconds, peak_mib
        self.summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        self.store = directory / "muster-data"

    def metric(self, trial, name):
        """(step, value, seconds since the program was started), by step."""
        pattern = f"experiments/*/trials/{trial}/metrics/*.parquet"
        rows = {}
        for file in sorted(self.store.glob(pattern)):
            table = pyarrow.parquet.read_table(file).to_pylist()
            for row in table:
                if row["name"] == name:
                    at = row["recorded_at"].timestamp() - self.started_at
                    rows[row["step"]] = (row["step"], row["value"], at)
        return [rows[step] for step in sorted(rows)]

    def real_tokens_per_second(self, trial, skip):
        """Over the read-backs behind step `skip`: their tokens over their time."""
        speeds = self.metric(trial, "tokens_per_second")
        tokens = seconds = 0.0
        for before, here in zip(speeds, speeds[1:]):
            if before[0] >= skip:
                tokens += here[1] * (here[2] - before[2])
                seconds += here[2] - before[2]
        if seconds == 0.0:
            raise Failed(f"too few steps behind step {skip} to tell a speed")
        return tokens / seconds

    def first_step_at(self, trial):
        """Seconds from the start of the program to the end of the first optimizer step."""
        return self.metric(trial, "train_loss")[0][2]

    def last_step_at(self, trial):
        return self.metric(trial, "train_loss")[-1][2]

    def log_time(self, words):
        """Seconds from the start of the program to each log line that holds `words`."""
        return log_time(self.store, self.started_at, words)


def log_time(store, started_at, words):
    """Seconds from `started_at` to each line that holds `words` in the logs beneath `store`."""
    found = []
    for file in sorted((store / "coordinator" / "logs").glob("*.log")):
        for line in file.read_text(encoding="utf-8").splitlines():
            stamp = re.search(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line)
            if words in line and stamp:
                at = datetime.strptime(stamp.group(0), "%Y-%m-%dT%H:%M:%S.%fZ")
                found.append(at.replace(tzinfo=timezone.utc).timestamp() - started_at)
    return found


def run(root, directory, manifest, slots=1, threads=2, limit=1800):
    """`muster run` on `manifest` (text) in `directory`, which keeps its store between calls."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.yaml").write_text(manifest, encoding="utf-8")
    command = [root / "target/release/muster", "run", "manifest.yaml", "--summary", "summary.json"]
    command += ["--slots", str(slots), "--threads-per-slot", str(threads)]
    started_at = time.time()
    with open(directory / "output", "w", encoding="utf-8") as output:
        child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        memory = Memory(child.pid)
        memory.start()
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = f"still running after {limit} s"
        wall_seconds, peak_mib = time.time() - started_at, memory.stop()
    if code != 0:
        tail = (directory / "output").read_text(encoding="utf-8")[-800:]
        raise Failed(f"muster run: {code}: {tail}")
    return Run(directory, started_at, wall_seconds, peak_mib)


def forget_state(directory):
    """The next run in `directory` is a new experiment; the store with its caches stays."""
    state = directory / "muster-data" / "coordinator"
    if state.exists():
        os.rename(state, directory / f"coordinator-{time.time_ns()}")


def manifest(model, data, steps, *, batch=32, max_length=128, frozen=None, text="sentence", extra="", rate="5e-5"):
    """One trial with constant hyperparameters, the peers' recipe; `frozen`: embeddings and so many layers are."""
    freeze = f"freeze: {{embeddings: true, layers: {frozen}}}" if frozen is not None else ""
    return f"""version: 1
name: bench
seed: 42
model:
  pretrained: {model}
  max_length: {max_length}
  {freeze}
data:
  train: {{path: {data / 'train.parquet'}}}
  validation: {{examples: 200}} # cut off: the evaluation at the end stays out of the figures anyway
  text: {text}
  label: {{column: label}}
hyperparameters:
  learning_rate: {rate}
  global_batch_size: {batch}
  warmup_ratio: 0.06
  weight_decay: 0.01
{extra}
budget: {{{steps}}}
"""
