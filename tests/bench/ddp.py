"""The part `ddp`: one trial on two ranks of one thread each, over Gloo, beside torchrun and DistributedDataParallel."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import muster
import peers
import train

GANG = "resources: {slots: 2}\n"
STEPS, SKIP = 60, 20


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as work:
        bench = train.Bench(root, pathlib.Path(work), pairs)
        for name, measure in (("ddp_step", speed), ("ddp_detect", faults)):
            if wanted(name) or (name == "ddp_detect" and wanted("ddp_recover")):
                try:
                    yield from measure(bench)
                except peers.Missing as missing:
                    yield {"name": name, "skipped": str(missing)}
                except muster.Failed as failed:
                    yield {"name": name, "skipped": f"failed: {failed}", "failed": True}
        yield {"name": "ddp_detect_cut_link_s", "skipped": "hosts: two network namespaces are not set up here"}


def ours(bench, slots):
    """Real tokens per second of one trial, and its run."""
    extra = GANG if slots > 1 else ""
    text = muster.manifest(bench.minilm, bench.data("sst2"), f"steps: {STEPS}", extra=extra)
    run = muster.run(bench.root, bench.folder("ddp"), text, slots=slots, threads=1)
    return run.real_tokens_per_second("1", SKIP), run


def peer(bench):
    """The peer through torchrun, which is a module of its Python."""
    script = peers.scripts(bench.root) / "ddp_gloo.py"
    if not script.exists():
        raise peers.Missing(f"{script.name} is not among the peers")
    out = bench.folder("peer").with_suffix(".json")
    command = [peers.python(bench.root), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    command += ["--model", bench.minilm, "--data", bench.data("sst2"), "--batch", "16", "--threads", "1"]
    command += ["--steps", STEPS, "--skip", SKIP, "--sizes-mb", "25", "--out", out]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(script.parent)}
    done = subprocess.run(
        list(map(str, command)), cwd=bench.work, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )
    if done.returncode != 0 or not out.exists():
        raise peers.Missing(f"ddp_gloo.py failed: {done.stderr.strip().splitlines()[-1:]}")
    return muster.json.loads(out.read_text(encoding="utf-8"))["real_tokens_per_s"]


def speed(bench):
    """Two ranks against the peer's two, and against one of ours, in turns."""
    pair, alone, theirs, overlap = [], [], [], []
    for _ in range(bench.pairs):
        found, run = ours(bench, 2)
        pair.append(found)
        overlap.append(overlap_share(run))
        theirs.append(peer(bench))
        alone.append(ours(bench, 1)[0])
    note = f"real tokens/s, 2 ranks of 1 thread, Gloo, MiniLM, batch 32, steps {SKIP} to {STEPS}"
    yield train.ratio(
        "ddp_step_vs_torchrun", [a / b for a, b in zip(pair, theirs)], pair, "torchrun, DDP", theirs, note,
    )
    yield {
        "name": "ddp_overlap_share", "unit": "share", "better": "higher", "samples": overlap,
        "note": "communication while backward still computed, by c10d's own Logger; MiniLM: half of its weights are "
                "word embeddings, whose gradients come last",
    }
    yield {
        "name": "ddp_scaling_1_to_2", "unit": "ratio", "better": "higher",
        "samples": [a / b for a, b in zip(pair, alone)], "note": "real tokens/s of 2 ranks over those of 1, 1 thread each",
    }


def overlap_share(run):
    for file in sorted((run.store / "coordinator" / "logs").glob("*.log")):
        for line in file.read_text(encoding="utf-8").splitlines():
            found = re.search(r"communication_ms=([\d.]+).*overlap_ms=([\d.]+)", line)
            if found and float(found.group(1)) > 0:
                return float(found.group(2)) / float(found.group(1))
    raise muster.Failed("the log does not say how communication and computation overlap")


def faults(bench):
    """SIGKILL of the second rank's runner in the middle of a trial."""
    known, again = [], []
    for _ in range(bench.pairs):
        detected, recovered = one_fault(bench)
        known.append(detected)
        again.append(recovered)
    note = "SIGKILL of a runner until another rank's log says so, one host"
    yield train.seconds("ddp_detect_kill_s", known, note)
    note = "from there to the end of the first step after it, new processes and all; MiniLM"
    yield train.seconds("ddp_recover_s", again, note)


def one_fault(bench):
    directory = bench.folder("fault")
    directory.mkdir(parents=True)
    text = muster.manifest(bench.minilm, bench.data("sst2"), "steps: 60", extra=GANG + "checkpoint: {every_steps: 5}\n")
    (directory / "manifest.yaml").write_text(text, encoding="utf-8")
    command = [bench.root / "target/release/muster", "run", "manifest.yaml", "--summary", "summary.json"]
    command += ["--slots", "2", "--threads-per-slot", "1"]
    begun = time.time()
    with open(directory / "output", "w", encoding="utf-8") as output:
        child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            killed_at = kill_a_rank(directory, child, begun)
            code = child.wait(600)
        except subprocess.TimeoutExpired:
            code = "still running after 600 s"
        finally:
            child.kill()
            child.wait()
    if code != 0:
        raise muster.Failed(f"muster run: {code}: {(directory / 'output').read_text(encoding='utf-8')[-800:]}")
    run = muster.Run(directory, begun, 0, 0)
    words = [at for at in run.log_time("its process is gone") if at >= killed_at]
    steps = [at for _, _, at in run.metric("1", "train_loss") if words and at >= words[0]]
    if not words or not steps:
        raise muster.Failed("the log does not tell of the killed rank")
    return words[0] - killed_at, steps[0] - words[0]


def kill_a_rank(directory, child, begun):
    """Waits for two checkpoints, kills the last runner, and says when, in seconds since `begun`."""
    family = muster.Memory(child.pid).family
    while time.time() - begun < 600:
        if len(list(directory.glob("muster-data/experiments/*/trials/1/checkpoints/*/index.json"))) >= 2:
            runners = [pid for pid in family() if b"runner" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
            os.kill(runners[-1], signal.SIGKILL)
            return time.time() - begun
        if child.poll() is not None:
            break
        time.sleep(0.02)
    raise muster.Failed(f"no two checkpoints: {(directory / 'output').read_text(encoding='utf-8')[-800:]}")
