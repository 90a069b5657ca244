"""The part `ui`: the dashboard with 10,000 finished trials, in a real browser, beside Optuna's dashboard."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

import control
import muster
import peers

TRIALS = 10_000
# Times that every request is made; with some thirty requests of the pages a few hundred.
ROUNDS = 12
EXPERIMENT = "/experiments/simulated-1"
PEER = "optuna-dashboard"
PEER_SECONDS = 60


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    names = ["dashboard_p95_ms_10k", "dashboard_first_paint_s_10k", "dashboard_ready_s_10k"]
    ratios = ["dashboard_p95_vs_optuna", "dashboard_first_paint_vs_optuna", "dashboard_ready_vs_optuna"]
    if not any(wanted(name) for name in names + ratios):
        return
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as work:
        work = pathlib.Path(work)
        try:
            with ours(root, work) as url:
                found = measure(root, url, ["/", EXPERIMENT, "/cluster"], pairs, "muster")
        except (peers.Missing, muster.Failed) as error:
            yield {"name": names[0], "skipped": str(error), "failed": isinstance(error, muster.Failed)}
            return
        units, notes = ["ms", "s", "s"], describe(found, pairs)
        for name, unit, samples, note in zip(names, units, figures(found), notes):
            yield {"name": name, "unit": unit, "better": "lower", "samples": samples, "note": note}
        try:
            with theirs(root, work) as url:
                other = measure(root, url, ["/dashboard/", "/dashboard/studies/1"], pairs, "optuna")
        except peers.Missing as missing:
            yield {"name": ratios[0], "skipped": str(missing)}
            return
        for name, mine, other_ones, note in zip(ratios, figures(found), figures(other), describe(other, pairs)):
            mine, other_ones = statistics.median(mine), statistics.median(other_ones)
            yield {"name": name, "unit": "ratio", "better": "lower", "samples": [mine / other_ones], "ours": mine,
                   "peer": {"name": PEER, "value": other_ones}, "note": f"theirs: {note}"}


def figures(found):
    """p95 of requests in ms, by round; of the slowest page seconds until it paints anything, and everything."""
    paints = [max(page["first_paint_s"] for page in visit.values()) for visit in found["visits"]]
    ready = [max(page["ready_s"] for page in visit.values()) for visit in found["visits"]]
    return [found["p95_ms"], paints, ready]


def describe(found, pairs):
    medians = {path: statistics.median(times) for path, times in found["times_ms"].items()}
    slowest = max(medians, key=medians.get)
    count = sum(map(len, found["times_ms"].values()))
    requests = f"{count} requests in turn to the {len(medians)} addresses that the pages ask for; the slowest is " \
               f"{slowest} with a median of {medians[slowest]:.1f} ms and {found['bytes'][slowest] / 1e3:.0f} kB"
    pages = ", ".join(found["visits"][0])
    paint = f"{TRIALS} trials; the slowest of {pages} in headless Chromium, nothing in its cache, {pairs} visits"
    return [requests, paint, f"{paint}; until the page says that its data and pictures are there"]


@contextlib.contextmanager
def ours(root, work):
    """A coordinator with an experiment whose trials have all ended."""
    browser(root)
    with control.Coordinator(root, work / "ui") as coordinator:
        pruner = "{type: asha_stopping, reduction_factor: 4, min_budget: {steps: 60}}"
        coordinator.simulate(workers=16, trials=TRIALS, reports=3, pruner=pruner)
        yield coordinator.url


@contextlib.contextmanager
def theirs(root, work):
    """Optuna's dashboard with as many trials, in SQLite as its own guide has it."""
    python = pathlib.Path(os.environ.get("MUSTER_PEERS_DASHBOARD", root / ".cache/peers-dashboard/bin/python"))
    program = python.parent / "optuna-dashboard"
    if not program.exists():
        raise peers.Missing("no optuna-dashboard: run tests/bench/peers.sh or set MUSTER_PEERS_DASHBOARD")
    storage = f"sqlite:///{work}/study.db"
    script = pathlib.Path(__file__).parent / "optuna_study.py"
    make = [python, script, "--storage", storage, "--trials", str(TRIALS)]
    made = subprocess.run(make, capture_output=True, text=True, timeout=1800, check=False)
    if made.returncode != 0:
        raise peers.Missing(f"{script.name} failed: {made.stderr.strip().splitlines()[-1:]}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen([program, storage, "--host", "127.0.0.1", "--port", str(port)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PEER_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if time.monotonic() > deadline or child.poll() is not None:
                raise peers.Missing(f"{PEER} does not serve")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def browser(root):
    modules = root / ".cache/browser/node_modules"
    if not shutil.which("node") or not shutil.which("chromium") or not (modules / "playwright-core").is_dir():
        raise peers.Missing("no Chromium or nothing to drive it: run deploy/setup/browser.sh")
    return modules


def measure(root, url, pages, pairs, kind):
    """Looks at the pages, then asks for what they have asked for."""
    environment = {**os.environ, "MUSTER_MODULES": str(browser(root)), "MUSTER_URL": url, "MUSTER_KIND": kind,
                   "MUSTER_PAGES": json.dumps(pages), "MUSTER_VISITS": str(pairs)}
    script = pathlib.Path(__file__).parent / "paint.mjs"
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        failed = peers.Missing if kind != "muster" else muster.Failed
        raise failed(f"{script.name}: {done.stderr.strip()[-600:]}")
    found = json.loads(done.stdout)
    return found | ask(url, found["requests"])


def ask(url, paths):
    """Milliseconds of each address, everything read; in turn, over one connection, packed as for a browser."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    times, sizes, p95 = {path: [] for path in paths}, {}, []
    for _ in range(ROUNDS):
        one = []
        for path in paths:
            begun = time.monotonic()
            connection.request("GET", path, headers={"accept-encoding": "gzip"})
            answer = connection.getresponse()
            body = answer.read()
            one.append((time.monotonic() - begun) * 1e3)
            if answer.status != 200:
                raise muster.Failed(f"{path}: {answer.status} {body[:200]}")
            times[path].append(one[-1])
            sizes[path] = len(body)
        p95.append(statistics.quantiles(one, n=20, method="inclusive")[-1])
    connection.close()
    return {"times_ms": times, "bytes": sizes, "p95_ms": p95}
