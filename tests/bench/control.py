"""The part `control`: the coordinator alone, with simulated workers over real gRPC on the same machine."""
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import time

import muster
import peers
import sizes

TRIALS, REPORTS = sizes.size(2000, 100), 10
POINTS = sizes.size(250_000, 1000)
MANY_TRIALS, MANY_WORKERS = sizes.size(100_000, 500), sizes.size(10_000, 200)
TUNE_TRIALS = sizes.size(10_000, 32)
# Trials that end at once, for the peers: Ray Tune needs a tenth of a second for each, or two seconds.
RAY_TRIALS, OPTUNA_TRIALS = sizes.size(100, 4), sizes.size(300, 10)
# While the coordinator is killed and started again: workers, trials and milliseconds of a trial; and the moment,
# in seconds after their start.
AWAY_WORKERS, AWAY_TRIALS, AWAY_TRIAL_MS, KILLED_AFTER = sizes.size((500, 3000, 2000, 5.0), (20, 60, 1000, 1.5))


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    measures = {
        ("coordinator_cpu_ms_per_trial", "trial_starts_per_s", "slot_idle_ms"): trials,
        ("empty_trials_vs_ray",): empty_trials_beside_ray,
        ("empty_trials_vs_optuna",): empty_trials_beside_optuna,
        ("restart_100k_trials_s", "durable_reports_per_s", "rss_10k_workers_mib", "rss_10k_workers_restarted_mib",
         "restart_connected_s"): many_trials,
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

    def __init__(self, root, directory, port=0):
        self.root, self.directory, self.port = root, directory, port
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "muster.toml").write_text("max_slots = 100000\n", encoding="utf-8")

    def __enter__(self):
        command = [self.root / "target/release/muster", "serve", "--listen", f"127.0.0.1:{self.port}", "--no-workers"]
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
        """Runs the simulated workers to their end; what they saw."""
        return self.begin(**settings).result()

    def begin(self, **settings):
        """Starts the simulated workers."""
        return Simulation(self.root, self.url, settings)

    def newest_trials(self):
        """The trials of the experiment that was submitted last, as `muster ls` has them."""
        newest = max(self.listed(), key=lambda experiment: int(experiment["experiment"].rsplit("-", 1)[1]))
        return self.listed(newest["experiment"])["trials"]

    def listed(self, *words):
        command = [self.root / "target/release/muster", "ls", *words, "--json", "--coordinator", self.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise muster.Failed(f"muster ls: {done.stderr.strip()[-400:]}")
        return muster.json.loads(done.stdout)


class Simulation:
    """Simulated workers in a process of their own."""

    def __init__(self, root, url, settings):
        command = [root / "target/release/examples/measure", "control", "--url", url]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self.child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self, limit=1800):
        """What they saw, once they have ended; `limit` in seconds."""
        try:
            output, errors = self.child.communicate(timeout=limit)
        except subprocess.TimeoutExpired as late:
            self.child.kill()
            self.child.communicate()
            raise muster.Failed(f"simulated workers were not through after {limit} s") from late
        if self.child.returncode != 0:
            raise muster.Failed(f"simulated workers: {errors.strip()[-800:]}")
        return muster.json.loads(output)


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


def empty_trials(root, directory):
    """Trials per second, each with its reports, all durable."""
    with Coordinator(root, directory) as coordinator:
        return TRIALS / coordinator.simulate(workers=16, trials=TRIALS, reports=REPORTS)["seconds"]


def empty_trials_beside_ray(root, work, pairs):
    """Trials that train nothing, beside Ray Tune with actors that are used again, its quickest way."""
    ours, theirs, notes = [], [], []
    for number in range(pairs):
        ours.append(empty_trials(root, work / f"ray-{number}"))
        found = peers.run(
            root, "ray_tune.py", "overhead", "--trials", RAY_TRIALS, "--reports", REPORTS, "--concurrent", 2, "--reuse", "yes",
        )
        theirs.append(found["trials_per_s"])
        # On each of its two slots one trial follows the other.
        notes.append(f"{2000 / found['trials_per_s']:.0f} ms from trial to trial on a slot, "
                     f"{found['driver_rss_mb'] + found['ray_children_rss_mb']:.0f} MiB")
    yield {"name": "empty_trials_vs_ray", "unit": "ratio", "better": "higher",
           "samples": [a / b for a, b in zip(ours, theirs)], "ours": statistics.median(ours), "peer": {"name": "Ray Tune, reuse_actors", "value": statistics.median(theirs)},
           "note": f"trials per second of {REPORTS} reports each that train nothing, {TRIALS} of ours, all durable, and "
                   f"{RAY_TRIALS} of Ray Tune; Ray Tune: {'; '.join(notes)}"}


def empty_trials_beside_optuna(root, work, pairs):
    """Trials that train nothing, beside Optuna with a store that outlives it; it draws at random and reports nothing."""
    ours, theirs, notes = [], [], []
    for number in range(pairs):
        ours.append(empty_trials(root, work / f"optuna-{number}"))
        found = {storage: peers.run(root, "optuna_asha.py", "overhead", "--trials", OPTUNA_TRIALS, "--sampler", "random",
                                    "--storage", storage)["trials_per_s"] for storage in ("sqlite", "journal")}
        theirs.append(max(found.values()))
        notes.append(", ".join(f"{storage} {speed:.3g}" for storage, speed in found.items()))
    yield {"name": "empty_trials_vs_optuna", "unit": "ratio", "better": "higher",
           "samples": [a / b for a, b in zip(ours, theirs)], "ours": statistics.median(ours),
           "peer": {"name": "Optuna, its quicker store", "value": statistics.median(theirs)},
           "note": f"trials per second that train nothing, {TRIALS} of ours with {REPORTS} reports each, all durable, and "
                   f"{OPTUNA_TRIALS} of Optuna in one process, without any; {'; '.join(notes)}"}


def tune(root, work, pairs):
    """10,000 one-second trials on 16 slots."""
    del pairs
    with Coordinator(root, work / "tune") as coordinator:
        found = coordinator.simulate(workers=16, trials=TUNE_TRIALS, trial_ms=1000, reports=REPORTS)
    yield {"name": "tune_10000_trials_s", "unit": "s", "better": "lower", "samples": [found["seconds"]],
           "note": f"{TUNE_TRIALS} trials of one second on 16 slots; of 10,000 625 s is the least, Ray Tune's own table says 715 s"}


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
    """100,000 trials, then `kill -9` and new starts, with workers at work and with 10,000 of them."""
    directory = work / "many"
    with Coordinator(root, directory) as coordinator:
        found = coordinator.simulate(workers=16, trials=MANY_TRIALS, reports=REPORTS)
    yield {"name": "durable_reports_per_s", "unit": "1/s", "better": "higher",
           "samples": [MANY_TRIALS * (REPORTS + 1) / found["seconds"]],
           "note": f"reports journaled and acknowledged, {MANY_TRIALS} trials of {REPORTS} reports and an end"}
    samples = []
    for _ in range(3):
        with Coordinator(root, directory) as coordinator:
            samples.append(coordinator.seconds_to_serve)
    yield {"name": "restart_100k_trials_s", "unit": "s", "better": "lower", "samples": samples,
           "note": f"start to serving with {MANY_TRIALS} finished trials in the journal, after kill -9"}
    yield restart_with_workers(root, directory, pairs)
    # The last on this journal: who has been cut off counts as a free slot until its lease is over.
    with Coordinator(root, directory) as coordinator:
        yield many_workers(coordinator, "rss_10k_workers_restarted_mib", "which a process just started has read")
    with Coordinator(root, work / "lived") as coordinator:
        coordinator.simulate(workers=16, trials=MANY_TRIALS, reports=REPORTS)
        yield many_workers(coordinator, "rss_10k_workers_mib", "which all ended in this process's time")


def many_workers(coordinator, name, whose):
    """The most memory of the coordinator while 10,000 workers are connected."""
    alone, samples = coordinator.rss_mib(), []
    simulation = coordinator.begin(workers=MANY_WORKERS, trials=0, idle_seconds=10)
    while simulation.child.poll() is None:
        samples.append(coordinator.rss_mib())
        time.sleep(0.2)
    simulation.result()
    return {"name": name, "unit": "MiB", "better": "lower", "value": max(samples),
            "note": f"the most while {MANY_WORKERS} workers come and stay connected for 10 s, with {MANY_TRIALS} finished "
                    f"trials {whose}; {alone:.0f} before they came"}


def restart_with_workers(root, directory, pairs):
    """`kill -9` while workers train: they carry on, come back, and no trial is lost or done twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away, notes, failed = [], [], False
    for _ in range(pairs):
        with Coordinator(root, directory, port) as coordinator:
            simulation = coordinator.begin(
                workers=AWAY_WORKERS, trials=AWAY_TRIALS, trial_ms=AWAY_TRIAL_MS, reports=REPORTS, patience_seconds=60,
            )
            time.sleep(KILLED_AFTER)
        with Coordinator(root, directory, port) as coordinator:
            found = simulation.result(limit=300)
            trials = coordinator.newest_trials()
        whole = sum(trial["state"] == "completed" and trial["attempts"] == 1 for trial in trials)
        failed |= not whole == len(trials) == found["assigned"] == AWAY_TRIALS
        failed |= found["away_ms"]["count"] < AWAY_WORKERS
        away.append(found["away_ms"]["max"] / 1e3)
        notes.append(f"{found['away_ms']['count']} workers came back, {whole} of {AWAY_TRIALS} trials completed at the first "
                     f"attempt, {coordinator.seconds_to_serve:.2f} s from the new start to serving")
    return {"name": "restart_connected_s", "unit": "s", "better": "lower", "samples": away, "failed": failed,
            "note": f"from the cut to the welcome of the last of {AWAY_WORKERS} workers, with {MANY_TRIALS} more trials in "
                    f"the journal, kill -9 amid trials of {AWAY_TRIAL_MS / 1e3:g} s; {'; '.join(notes)}"}
