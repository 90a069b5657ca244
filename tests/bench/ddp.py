"""The part `ddp`: one trial on two ranks of one thread each, over Gloo, beside torchrun and DistributedDataParallel."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import hosts
import muster
import peers
import train

GANG = "resources: {slots: 2}\n"
STEPS, SKIP = 60, 20
# Longest time without a sign of life of another rank, seconds.
DEADLINE = 10


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as work:
        bench = train.Bench(root, pathlib.Path(work), pairs)
        for names, measure in MEASURES.items():
            if any(wanted(name) for name in names):
                try:
                    yield from measure(bench)
                except peers.Missing as missing:
                    yield {"name": names[0], "skipped": str(missing)}
                except muster.Failed as failed:
                    yield {"name": names[0], "skipped": f"failed: {failed}", "failed": True}


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
        "name": "ddp_overlap_share_minilm", "unit": "share", "better": "higher", "samples": overlap,
        "note": "as ddp_overlap_share; half of MiniLM's weights are word embeddings, whose gradients come last and in one piece",
    }
    yield {
        "name": "ddp_scaling_1_to_2", "unit": "ratio", "better": "higher",
        "samples": [a / b for a, b in zip(pair, alone)], "note": "real tokens/s of 2 ranks over those of 1, 1 thread each",
    }


def overlap(bench):
    """A model whose weights are in its layers: with word embeddings frozen all 12 layers of gte-small are to be sent."""
    model, samples = peers.shared(bench.root, "weights/gte-small"), []
    for _ in range(bench.pairs):
        text = muster.manifest(model, bench.data("sst2"), "steps: 40", frozen=0, extra=GANG)
        samples.append(overlap_share(muster.run(bench.root, bench.folder("overlap"), text, slots=2, threads=1)))
    yield {
        "name": "ddp_overlap_share", "unit": "share", "better": "higher", "samples": samples,
        "note": "communication while backward still computed, by c10d's own Logger; gte-small, embeddings frozen, batch 32",
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
        detected, recovered = one_fault(bench, signal.SIGKILL, "its process is gone")
        known.append(detected)
        again.append(recovered)
    note = "SIGKILL of a runner until another rank's log says so, one host"
    yield train.seconds("ddp_detect_kill_s", known, note)
    note = "from there to the end of the first step after it, new processes and all; MiniLM"
    yield train.seconds("ddp_recover_s", again, note)


def hang(bench):
    """SIGSTOP of the second rank's runner."""
    samples = [one_fault(bench, signal.SIGSTOP, "no sign of life")[0] for _ in range(bench.pairs)]
    yield train.seconds("ddp_detect_hang_s", samples, f"SIGSTOP of a runner until it is given up; step_deadline_s: {DEADLINE}")


def one_fault(bench, fault, words):
    """Seconds from the signal to the log line with `words`, and from there to the next finished step."""
    directory = bench.folder("fault")
    directory.mkdir(parents=True)
    (directory / "manifest.yaml").write_text(faulty_manifest(bench), encoding="utf-8")
    command = [bench.root / "target/release/muster", "run", "manifest.yaml", "--summary", "summary.json"]
    command += ["--slots", "2", "--threads-per-slot", "1"]
    begun = time.time()
    with open(directory / "output", "w", encoding="utf-8") as output:
        child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            await_checkpoints(directory, child, begun)
            runners = [pid for pid in muster.Memory(child.pid).family() if is_runner(pid)]
            os.kill(runners[-1], fault)
            happened_at = time.time() - begun
            code = child.wait(600)
        except subprocess.TimeoutExpired:
            code = "still running after 600 s"
        finally:
            child.kill()
            child.wait()
    if code != 0:
        raise muster.Failed(f"muster run: {code}: {(directory / 'output').read_text(encoding='utf-8')[-800:]}")
    run = muster.Run(directory, begun, 0, 0)
    said = [at for at in run.log_time(words) if at >= happened_at]
    steps = [at for _, _, at in run.metric("1", "train_loss") if said and at >= said[0]]
    if not said or not steps:
        raise muster.Failed("the log does not tell of the rank")
    return said[0] - happened_at, steps[0] - said[0]


def faulty_manifest(bench):
    extra = f"{GANG}checkpoint: {{every_steps: 5}}\ntraining: {{step_deadline_s: {DEADLINE}}}\n"
    return muster.manifest(bench.minilm, bench.data("sst2"), "steps: 60", extra=extra)


def is_runner(pid):
    try:
        return b"runner" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def await_checkpoints(directory, child, begun):
    """Waits for two whole checkpoints."""
    while time.time() - begun < 600:
        if len(list(directory.glob("muster-data/experiments/*/trials/1/checkpoints/*/index.json"))) >= 2:
            return
        if child.poll() is not None:
            break
        time.sleep(0.02)
    raise muster.Failed(f"no two checkpoints: {(directory / 'output').read_text(encoding='utf-8')[-800:]}")


def cut_link(bench):
    """Two hosts with a rank each; the cable of the second is pulled."""
    with hosts.Hosts() as pair:
        samples = []
        for _ in range(bench.pairs):
            samples.append(one_cut(bench, pair))
            pair.heal("b")
    yield train.seconds(
        "ddp_detect_cut_link_s", samples, "cable pulled, nobody told, until the other host's rank says so; two network namespaces",
    )


def one_cut(bench, pair):
    directory = bench.folder("cut")
    directory.mkdir(parents=True)
    (directory / "manifest.yaml").write_text(faulty_manifest(bench), encoding="utf-8")
    (directory / "muster.toml").write_text("max_slots = 2\n", encoding="utf-8")
    release, url = bench.root / "target/release", f"http://{hosts.ADDRESSES['a']}:7700"
    serve = pair.command("a", release / "muster", "serve", "--listen", f"{hosts.ADDRESSES['a']}:7700", "--no-workers")
    supervise = [release / "muster-worker", "supervise", "--coordinator", url]
    submit = pair.command("a", release / "muster", "submit", "manifest.yaml", "--coordinator", url)
    begun, children = time.time(), []
    with open(directory / "output", "w", encoding="utf-8") as output:
        try:
            for command in (serve, pair.command("a", *supervise), pair.command("b", *supervise)):
                variables = {**os.environ, "OMP_NUM_THREADS": "1"}
                child = subprocess.Popen(
                    command, cwd=directory, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )
                children.append(child)
                time.sleep(1)
            subprocess.run(submit, cwd=directory, stdout=output, stderr=output, check=True, timeout=60)
            await_checkpoints(directory, children[0], begun)
            pair.cut("b")
            cut_at = time.time() - begun
            return await_words(directory, begun, "the way to its host is cut") - cut_at
        except subprocess.CalledProcessError as error:
            raise muster.Failed(str(error)) from error
        finally:
            for child in children:
                child.kill()
                child.wait()


def await_words(directory, begun, words):
    """Waits for a line of a rank's log; when it was written, in seconds since `begun`."""
    while time.time() - begun < 600:
        found = muster.log_time(directory / "muster-data", begun, words)
        if found:
            return found[0]
        time.sleep(0.1)
    raise muster.Failed(f"the logs do not say `{words}`")


MEASURES = {
    ("ddp_step", "ddp_scaling"): speed,
    ("ddp_overlap",): overlap,
    ("ddp_detect_kill", "ddp_recover"): faults,
    ("ddp_detect_hang",): hang,
    ("ddp_detect_cut_link",): cut_link,
}
