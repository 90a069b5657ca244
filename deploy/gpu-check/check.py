"""Checks Muster on a GPU: numbers against the CPU's, a short run of BERT-base shapes on reviews of up to 512 tokens, its
speed, arithmetic and memory, ranks that share the GPU, and HF Trainer on the same rows where transformers is installed.

Writes one JSON object (--out) and prints it as a table. Exit code 1: a number is wrong, or a run failed.
"""
import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
# Dense bfloat16 operations per second by what the data sheets say, and a part of the name nvidia-smi gives.
PEAKS = [("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40S", 362e12), ("A10", 125e12), ("4090", 165e12)]
WORDS = "the a film of and story with plot acting was is not very great dull long short good bad music scene end".split()


class Failed(Exception):
    """A check went wrong; the message says how."""


class GpuMemory(threading.Thread):
    """The most memory, MiB, that was in use on the GPU beyond what was in use before."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.number = device.partition(":")[2]
        self.before, self.peak, self.ended = self.used(), 0, threading.Event()

    def used(self):
        return smi("memory.used", self.number)

    def run(self):
        while not self.ended.wait(0.2):
            self.peak = max(self.peak, (self.used() or 0) - (self.before or 0))

    def stop(self):
        self.ended.set()
        self.join()
        return self.peak if self.before is not None else None


def smi(field, number):
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", number]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return int(text) if text.isdigit() else text


def environment(device):
    """Of Muster's processes: which GPU, and where libtorch with its CUDA part lies."""
    variables = {**os.environ, "MUSTER_SLOT_DEVICE": device}
    found = importlib.util.find_spec("torch")
    if found is not None and found.submodule_search_locations:
        folder = pathlib.Path(list(found.submodule_search_locations)[0]) / "lib"
        variables["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    return variables


def binary(name):
    for folder in (HERE, HERE.parent.parent / "target/release"):
        if (folder / name).exists():
            return folder / name
    raise Failed(f"{name} is not beside this script: make the package with deploy/gpu-check/pack.sh")


def reviews(folder, count, longest):
    """Rows to train on: the packed reviews, or made-up ones with lengths like theirs."""
    packed, path = HERE / "reviews.jsonl", folder / "train.jsonl"
    if packed.exists():
        lines = packed.read_text(encoding="utf-8").splitlines()[:count]
    else:
        draw = random.Random(1)
        lines = []
        for number in range(count):
            words = draw.choices(WORDS, k=min(longest, max(8, int(draw.lognormvariate(5.2, 0.6)))))
            lines.append(json.dumps({"text": f"{number} " + " ".join(words), "label": number % 2}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def train(folder, model, rows, device, slots=1, variables=None, meanwhile=None, extra="", **settings):
    """One trial by `muster run`; returns its losses, speed and memory. `meanwhile` is called with the process."""
    folder.mkdir(parents=True)
    manifest = f"""version: 1
name: gpu-check
seed: 42
model: {{pretrained: {model}, max_length: {settings['max_length']}}}
data:
  train: {{path: {rows}}}
  validation: {{examples: 64}}
  text: text
  label: {{column: label}}
hyperparameters:
  learning_rate: 5e-5
  global_batch_size: {settings['batch']}
  dropout: {settings['dropout']}
training: {{precision: {settings['precision']}}}
budget: {{steps: {settings['steps']}}}
resources: {{slots: {slots}}}
{extra}"""
    (folder / "manifest.yaml").write_text(manifest, encoding="utf-8")
    command = [binary("muster"), "run", "manifest.yaml", "--slots", str(slots), "--summary", "summary.json"]
    memory = GpuMemory(device) if device != "cpu" else None
    if memory:
        memory.start()
    started = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), cwd=folder, env={**environment(device), **(variables or {})},
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if meanwhile:
            meanwhile(child)
        said, _ = child.communicate(timeout=1800)
    finally:
        child.kill()
        child.wait()
    seconds, peak = time.monotonic() - started, memory.stop() if memory else None
    logs = "".join(file.read_text(encoding="utf-8") for file in (folder / "muster-data").glob("coordinator/logs/*.log"))
    if child.returncode != 0:
        raise Failed(f"muster run on {device}, {settings['precision']}: {said[-1500:]}{logs[-1500:]}")
    speed = re.findall(r"tokens_per_second=([\d.]+)", logs)
    if not speed:
        raise Failed("the log does not tell the speed of training")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "tokens_per_second": float(speed[-1]), "peak_mib": peak,
            "loss": summary["best"]["validation"]["loss"], "attempts": summary["trials"][0]["attempts"]}


def predict(model, texts, device):
    command = [binary("muster"), "predict", model, "--file", texts, "--json"]
    done = subprocess.run(command, env=environment(device), capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise Failed(f"muster predict on {device}: {done.stderr[-1500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def numbers(work, model, rows, device):
    """The same weights and rows on GPU and CPU: logits in float32, and where short trainings end up."""
    texts = some_texts(work, rows)
    here, there = ([row["logits"] for row in predict(model, texts, where)] for where in (device, "cpu"))
    worst = max(abs(a - b) for one, other in zip(here, there) for a, b in zip(one, other))
    largest = max(abs(value) for row in there for value in row)
    yield "predict_gpu_vs_cpu", worst / largest, "relative", 1e-3
    settings = {"steps": 20, "batch": 16, "max_length": 128, "dropout": 0.0}
    on_cpu = train(work / "cpu", model, rows, "cpu", precision="float32", **settings)["loss"]
    formats = [("float32", 1e-3), ("bfloat16", 3e-2)]
    if device != "cpu":
        formats.append(("float16", 3e-2))  # with its loss scale; the CPU has no kernels for it
    for precision, limit in formats:
        loss = train(work / precision, model, rows, device, precision=precision, **settings)["loss"]
        yield f"loss_after_20_steps_{precision}_vs_cpu", abs(loss - on_cpu) / on_cpu, "relative", limit


def gangs(work, model, rows, device):
    """Ranks that share the GPU: the loss of one rank, through Gloo and, where NCCL can do that, through NCCL; and a rank
    that is killed."""
    settings = {"steps": 20, "batch": 16, "max_length": 128, "dropout": 0.0, "precision": "float32"}
    alone = train(work / "alone", model, rows, device, **settings)["loss"]
    gloo = {"MUSTER_GPU_COLLECTIVES": "gloo"}
    pair = train(work / "gloo", model, rows, device, slots=2, variables=gloo, **settings)["loss"]
    yield "loss_of_2_ranks_gloo_vs_1", abs(pair - alone) / alone, "relative", 1e-3
    if device == "cpu":
        yield "nccl_1_rank", None, "NCCL needs a GPU", None
        return
    one = subprocess.run([binary("muster-worker"), "check-collectives"], capture_output=True, text=True, timeout=300, check=False,
                         env={**environment(device), "MUSTER_GPU_COLLECTIVES": "nccl"})
    if one.returncode != 0:
        raise Failed(f"NCCL with one rank: {one.stderr[-1500:]}")
    yield "nccl_1_rank", 0.0, "wrong sums", 0
    library = os.environ.get("MUSTER_CHECK_NCCL")
    if not library:
        yield "nccl_several_ranks", None, "MUSTER_CHECK_NCCL names no libnccl.so.2 of 2.30 or newer, which lets ranks share a GPU", None
        return
    nccl = {"MUSTER_GPU_COLLECTIVES": "nccl", "LD_PRELOAD": library, "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    for count in (2, 3, 4):
        loss = train(work / f"nccl{count}", model, rows, device, slots=count, variables=nccl, **settings)["loss"]
        yield f"loss_of_{count}_ranks_nccl_vs_1", abs(loss - alone) / alone, "relative", 1e-3
    settings["steps"] = 400
    wanted = train(work / "undisturbed", model, rows, device, slots=2, variables=nccl, **settings)["loss"]
    found = train(work / "killed", model, rows, device, slots=2, variables=nccl, extra="checkpoint: {every_steps: 20}\n",
                  meanwhile=lambda child: kill_a_rank(child, work / "killed"), **settings)
    yield "loss_after_a_killed_rank_nccl", abs(found["loss"] - wanted) / wanted, "relative", 1e-3
    yield "attempts_after_a_killed_rank_nccl", abs(found["attempts"] - 2), "off", 0


def kill_a_rank(child, folder):
    """SIGKILL of a runner when two checkpoints are there."""
    started = time.monotonic()
    while time.monotonic() - started < 600 and child.poll() is None:
        if len(list(folder.glob("muster-data/experiments/*/trials/1/checkpoints/*/index.json"))) >= 2:
            runners = [pid for pid in descendants(child.pid) if b"muster-worker\0runner" in command_line(pid)]
            if runners:
                os.kill(runners[-1], signal.SIGKILL)
                return
        time.sleep(0.05)
    raise Failed("no two checkpoints before the end")


def descendants(pid):
    """Its children, theirs, and so on: nobody else's processes."""
    found, index = [pid], 0
    while index < len(found):
        for task in pathlib.Path(f"/proc/{found[index]}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                pass
        index += 1
    return found[1:]


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def some_texts(work, rows):
    path = work / "texts.jsonl"
    lines = [json.dumps({"text": json.loads(line)["text"]}) for line in rows.read_text(encoding="utf-8").splitlines()[:64]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lengths_of(work, model, rows):
    """Tokens of each of some texts."""
    return [len(row["token_ids"]) for row in predict(model, some_texts(work, rows), "cpu")]


def operations_per_token(counts, lengths, whole_last_layer):
    """Of forward and backward over texts of these lengths, every product counted as two operations. Of the last layer
    Muster computes keys and values of all tokens, and everything else of the first token of each text alone."""
    hidden, inner, tokens = counts["hidden"], counts["feed_forward"], sum(lengths)
    seen = sum(length * length for length in lengths) / tokens  # tokens that a token attends to
    layer = 2 * (4 * hidden * hidden + 2 * hidden * inner) + 4 * hidden * seen
    of_first = 2 * (2 * hidden * hidden + 2 * hidden * inner) * len(lengths) / tokens
    last = layer if whole_last_layer else 2 * 2 * hidden * hidden + of_first + 4 * hidden
    return 3 * ((counts["layers"] - 1) * layer + last)


def peer(work, model, rows, device, steps, batch):
    """HF Trainer in its best setting here, or why there is none."""
    if importlib.util.find_spec("transformers") is None:
        return {"skipped": "transformers is not installed"}
    out = work / "peer.json"
    command = [sys.executable, HERE / "hf_trainer.py", "--model", model, "--rows", rows, "--steps", steps, "--batch", batch,
               "--device", device, "--out", out]
    memory = GpuMemory(device) if device != "cpu" else None
    if memory:
        memory.start()
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    finally:
        peak = memory.stop() if memory else None
    if done.returncode != 0:
        return {"skipped": f"hf_trainer.py failed: {done.stderr.strip().splitlines()[-1:]}"}
    return {**json.loads(out.read_text(encoding="utf-8")), "peak_mib": peak}


def check(arguments, work, results):
    import shape  # needs numpy, which mistakes in the arguments should not

    small, device = arguments.small, arguments.device
    name = "tiny" if small else "bert-base"
    rows = reviews(work, 1000 if small else 6000, 512)
    tokenizer = HERE / "model"
    if not tokenizer.exists():
        tokenizer = HERE.parent.parent / ".cache/demo/minilm"
    keep = work / "tokenizer"
    keep.mkdir()
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / file).exists():
            (keep / file).write_bytes((tokenizer / file).read_bytes())
    model = work / name
    counts = shape.write(model, name, keep)
    tiny = work / "tiny"
    if not small:
        shape.write(tiny, "tiny", keep)
    for row in numbers(work, tiny, rows, device):
        record(results, row[0], row[1], row[2], limit=row[3])
    for name_of_row, value, unit, limit in gangs(work, tiny, rows, device):
        if value is None:
            results["rows"].append({"name": name_of_row, "skipped": unit})
            print(f"{name_of_row:40} skipped: {unit}", flush=True)
        else:
            record(results, name_of_row, value, unit, limit=limit)
    steps, batch = arguments.steps or (15 if small else 150), 8 if small else 32
    precision = "bfloat16" if device != "cpu" else "float32"
    ours = train(work / "speed", model, rows, device, steps=steps, batch=batch, max_length=512, dropout=0.1,
                 precision=precision)
    record(results, "tokens_per_second", ours["tokens_per_second"], "real tokens/s",
           note=f"{name} shapes, {precision}, batches of {batch}, at most 512 tokens, {steps} steps")
    peak = next((peak for part, peak in PEAKS if part in str(results["gpu"])), None)
    lengths = lengths_of(work, tiny, rows) if peak else None

    def share_of_peak(speed, whole_last_layer):
        return speed * operations_per_token(counts, lengths, whole_last_layer) / peak

    if peak:
        record(results, "mfu_real_tokens", share_of_peak(ours["tokens_per_second"], False), "share",
               note=f"of {peak / 1e12:.0f} TFLOPS dense bfloat16; what is not computed of the last layer is not counted")
    if ours["peak_mib"] is not None:
        record(results, "peak_gpu_memory", ours["peak_mib"], "MiB", note="of the whole process, by nvidia-smi")
    theirs = peer(work, model, rows, device, steps, batch) if not arguments.no_peer else {"skipped": "--no-peer"}
    if "skipped" in theirs:
        results["rows"].append({"name": "tokens_per_second_vs_hf", "skipped": theirs["skipped"]})
        return
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    note = f"HF Trainer {theirs['tokens_per_second']:.0f} real tokens/s, {theirs['setting']}"
    record(results, "tokens_per_second_vs_hf", ratio, "ratio", note=note)
    if peak:
        record(results, "mfu_real_tokens_hf", share_of_peak(theirs["tokens_per_second"], True), "share",
               note="of HF Trainer on real tokens; it computes the whole last layer")
    if theirs["peak_mib"] is not None:
        record(results, "peak_gpu_memory_hf", theirs["peak_mib"], "MiB",
               note=f"of the whole process, by nvidia-smi; tensors took {theirs['allocated_mib']:.0f}")


def record(results, name, value, unit, limit=None, note=""):
    row = {"name": name, "value": value, "unit": unit, "note": note}
    if limit is not None:
        row["limit"], row["failed"] = limit, not value <= limit
    results["rows"].append(row)
    verdict = "" if limit is None else (f"  above {limit:g}: WRONG" if row["failed"] else f"  at most {limit:g}: right")
    print(f"{name:40} {value:12.4g} {unit}{verdict}  {note}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:0 and so on, or cpu to try the script itself")
    parser.add_argument("--small", action="store_true", help="a model of two narrow layers, a few steps")
    parser.add_argument("--steps", type=int, help="of the run that is timed")
    parser.add_argument("--no-peer", action="store_true", help="without HF Trainer")
    parser.add_argument("--out", default="gpu-check.json")
    arguments = parser.parse_args()
    number = arguments.device.partition(":")[2]
    gpu = smi("name", number) if arguments.device != "cpu" else None
    if arguments.device != "cpu" and gpu is None:
        sys.exit(f"error: nvidia-smi knows no GPU {number}; name another with --device")
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "device": arguments.device,
        "gpu": gpu, "driver": smi("driver_version", number) if gpu else None, "machine": platform.platform(), "rows": [],
    }
    print(f"{results['date']}  {gpu or 'cpu'}", flush=True)
    failure = None
    with tempfile.TemporaryDirectory(prefix="muster-gpu-check-") as work:
        try:
            check(arguments, pathlib.Path(work), results)
        except (Failed, subprocess.TimeoutExpired) as error:
            failure = str(error)
    results["failure"] = failure
    pathlib.Path(arguments.out).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if failure:
        sys.exit(f"error: {failure}")
    sys.exit(1 if any(row.get("failed") for row in results["rows"]) else 0)


if __name__ == "__main__":
    main()
