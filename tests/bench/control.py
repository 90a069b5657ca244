"""The part `control`: the coordinator alone, with simulated workers over real gRPC on the same machine."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import muster
import peers

TRIALS, REPORTS = 2000, 10
POINTS = 250_000
MANY_TRIALS, MANY_WORKERS = 100_000, 10_000


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    measures = {
        ("coordinator_cpu_ms_per_trial", "trial_starts_per_s", "slot_idle_ms"): trials,
        ("restart_100k_trials_s", "durable_reports_per_s", "rss_10k_workers_mib"): many_trials,
        ("tune_10000_trials_s",): tune,
        ("ingest_points_per_s",): ingest,
    }
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as work:
        for names, measure in measures.items():
            if any(wanted(name) for name in names):
                try:
                    yield from measure(root, pathlib.Path(work), pairs)
                except peers.Missing as missing:
                    yield {"name": names[0], "skipped": str(missing)}
                except muster.Failed as failed:
                    yield {"name": names[0], "skipped": f"failed: {failed}", "failed": True}


class Coordinator:
    """`muster serve` without workers of its own, in a directory that keeps its state."""

    def __init__(self, root, directory):
        self.root, self.directory = root, directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "muster.toml").write_text("max_slots = 100000\n", encoding="utf-8")

    def __enter__(self):
        command = [self.root / "target/release/muster", "serve", "--listen", "127.0.0.1:0", "--no-workers"]
        begun = time.monotonic()
        self.log = open(self.directory / "serve.err", "a", encoding="utf-8")
        self.child = subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        line = self.child.stdout.readline()
        self.seconds_to_serve = time.monotonic() - begun
        if not line.startswith("serving on "):
            raise muster.Failed(f"muster serve says: {line}")
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.log.close()

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        pages = int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def simulate(self, **settings):
        """Runs the simulated workers; what they saw."""
        command = [self.root / "target/release/examples/measure", "control", "--url", self.url]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode != 0:
            raise muster.Failed(f"simulated workers: {done.stderr.strip()[-800:]}")
        return muster.json.loads(done.stdout)


def trials(root, work, pairs):
    """Trials that end at once: the coordinator's share of a trial, and the pause of a slot."""
    cpu, starts, idle = [], [], []
    for number in range(pairs):
        with Coordinator(root, work / f"trials-{number}") as coordinator:
            before = coordinator.cpu_seconds()
            found = coordinator.simulate(workers=16, trials=TRIALS, reports=REPORTS)
            cpu.append((coordinator.cpu_seconds() - before) * 1e3 / TRIALS)
            starts.append(TRIALS / found["seconds"])
        with Coordinator(root, work / f"idle-{number}") as coordinator:
            idle.append(coordinator.simulate(workers=16, trials=400, trial_ms=200, reports=REPORTS)["gap_ms"]["median"])
    note = f"{TRIALS} trials of {REPORTS} reports each, 16 simulated workers over gRPC on the same two cores, all durable"
    yield {"name": "coordinator_cpu_ms_per_trial", "unit": "ms", "better": "lower", "samples": cpu, "note": note}
    yield {"name": "trial_starts_per_s", "unit": "1/s", "better": "higher", "samples": starts, "note": note}
    yield {"name": "slot_idle_ms", "unit": "ms", "better": "lower", "samples": idle,
           "note": "median pause between the end of a trial and the start of the next on the same worker, trials of 0.2 s"}


def tune(root, work, pairs):
    """10,000 one-second trials on 16 slots."""
    del pairs
    with Coordinator(root, work / "tune") as coordinator:
        found = coordinator.simulate(workers=16, trials=10_000, trial_ms=1000, reports=REPORTS)
    yield {"name": "tune_10000_trials_s", "unit": "s", "better": "lower", "samples": [found["seconds"]],
           "note": "10,000 trials of one second on 16 slots; 625 s is the least, Ray Tune's own table says 715 s"}


def ingest(root, work, pairs):
    """Values for live views, as fast as the coordinator takes them."""
    samples, cpu = [], []
    for number in range(pairs):
        with Coordinator(root, work / f"ingest-{number}") as coordinator:
            before = coordinator.cpu_seconds()
            found = coordinator.simulate(workers=16, trials=32, reports=2, points=POINTS)
            samples.append(32 * POINTS / found["seconds"])
            cpu.append((coordinator.cpu_seconds() - before) * 1e6 / (32 * POINTS))
    yield {"name": "ingest_points_per_s", "unit": "1/s", "better": "higher", "samples": samples,
           "note": f"32 trials of {POINTS} values in messages of 100, 16 simulated workers on the same two cores; "
                   f"{sorted(cpu)[len(cpu) // 2]:.2f} us of the coordinator's CPU per value"}


def many_trials(root, work, pairs):
    """100,000 trials, then `kill -9` and new starts, and 10,000 workers besides."""
    del pairs
    with Coordinator(root, work / "many") as coordinator:
        found = coordinator.simulate(workers=16, trials=MANY_TRIALS, reports=REPORTS)
        yield {"name": "durable_reports_per_s", "unit": "1/s", "better": "higher",
               "samples": [MANY_TRIALS * (REPORTS + 1) / found["seconds"]],
               "note": f"reports journaled and acknowledged, {MANY_TRIALS} trials of {REPORTS} reports and an end"}
    samples = []
    for _ in range(3):
        with Coordinator(root, work / "many") as coordinator:
            samples.append(coordinator.seconds_to_serve)
    yield {"name": "restart_100k_trials_s", "unit": "s", "better": "lower", "samples": samples,
           "note": f"start to serving with {MANY_TRIALS} finished trials in the journal, after kill -9"}
    with Coordinator(root, work / "many") as coordinator:
        alone = coordinator.rss_mib()
        coordinator.simulate(workers=MANY_WORKERS, trials=0, idle_seconds=10)
        yield {"name": "rss_10k_workers_mib", "unit": "MiB", "better": "lower", "samples": [coordinator.rss_mib()],
               "note": f"{MANY_WORKERS} connected workers and {MANY_TRIALS} finished trials; {alone:.0f} before they came"}
