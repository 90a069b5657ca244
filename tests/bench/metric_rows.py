"""Rows `metric_*` of the part `storage`: metrics into the store, beside MLflow's file store and pyarrow."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

STEPS, PEER_STEPS = 100_000, 2_000
NAMES = ("train_loss", "learning_rate", "grad_norm")


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    if not any(map(wanted, ("metric_rows_per_s", "metric_bytes_per_row"))):
        return
    found = [pair(root) for _ in range(pairs)]
    ours = [mine["rows"] / mine["write_seconds"] for mine, _ in found]
    compacted = found[-1][0]
    note = (f"{STEPS} steps of {len(NAMES)} values, flushed every 1,000; compacted at "
            f"{compacted['rows'] / compacted['compact_seconds']:.0f} and read at "
            f"{compacted['rows'] / compacted['read_seconds']:.0f} rows/s")
    if wanted("metric_rows_per_s"):
        row = {"name": "metric_rows_per_s", "unit": "rows/s", "better": "higher", "samples": ours, "note": note}
        yield with_peer(row, sorted(ours)[len(ours) // 2], found, "rows_per_s")
    if wanted("metric_bytes_per_row"):
        sizes = [mine["trial_bytes"] / mine["rows"] for mine, _ in found]
        note = f"of an ended trial; {compacted['part_bytes'] / compacted['rows']:.1f} while it goes on"
        row = {"name": "metric_bytes_per_row", "unit": "bytes", "better": "lower", "samples": sizes, "note": note}
        yield with_peer(row, sizes[0], found, "bytes_per_row")


def with_peer(row, ours, found, key):
    theirs = sorted(peer[key] for _, peer in found)
    return {**row, "ours": ours, "peer": {"name": "mlflow file store", "value": theirs[len(theirs) // 2]}}


def pair(root):
    with tempfile.TemporaryDirectory() as directory:
        mine = measure(root, pathlib.Path(directory) / "ours")
        script = [sys.executable, __file__, str(pathlib.Path(directory) / "theirs")]
        done = subprocess.run(script, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"mlflow: {done.stderr[-400:]}")
        return mine, json.loads(done.stdout)


def measure(root, store):
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "measure"]
    subprocess.run(build, cwd=root, check=True, timeout=1800)
    command = [root / "target/release/examples/measure", "rows", "--store", store, "--steps", STEPS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measure rows: {done.stderr[-400:]}")
    return json.loads(done.stdout)


def peer(directory):
    """The same values through MLflow's client, all values of a step in one call, as its Trainer callback does."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import random

    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=pathlib.Path(directory).resolve().as_uri())
    run = client.create_run(client.create_experiment("bench")).info.run_id
    begun = time.perf_counter()
    for step in range(1, PEER_STEPS + 1):
        now = int(time.time() * 1000)
        client.log_batch(run, metrics=[Metric(name, random.random(), now, step) for name in NAMES])
    seconds = time.perf_counter() - begun
    num_rows = PEER_STEPS * len(NAMES)
    size = sum(file.stat().st_size for file in pathlib.Path(directory).glob("*/*/metrics/*"))
    shutil.rmtree(directory)
    print(json.dumps({"rows_per_s": num_rows / seconds, "bytes_per_row": size / num_rows}))


if __name__ == "__main__":
    peer(sys.argv[1])
